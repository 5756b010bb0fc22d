"""Batches of the running gateway, over its own HTTP door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import orjson

from noria.apps import access
from noria.apps.talk import address
from noria.errors import Conflict, Invalid, NoriaError, Unavailable
from noria.ports import Platform


def submit(platform: Platform, file: Path, hours: int) -> dict[str, Any]:
    """Upload a file and begin a batch on it; raises Invalid where its first line names no endpoint."""
    with file.open("rb") as lines:
        try:
            url = orjson.loads(lines.readline())["url"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise Invalid(f"the first line of '{file}' names no endpoint", 'such as {"url": "/v1/chat/completions"…'
            ) from error  # fmt: skip
        lines.seek(0)
        made = _request(
            platform, "POST", "/files", data={"purpose": "batch"}, files={"file": (file.name, lines)}
        ).json()
    wanted = {"input_file_id": made["id"], "endpoint": url, "completion_window": f"{hours}h"}
    return ask(platform, "POST", "/batches", wanted)


def look(platform: Platform, identity: str, output: Path | None) -> dict[str, Any]:
    """One batch; where it has ended its answers, good ones first, are written to `output`. Raises Conflict before."""
    told = ask(platform, "GET", f"/batches/{identity}")
    if output is not None:
        if told["status"] not in ("completed", "failed", "expired", "cancelled"):
            raise Conflict(f"the batch is {told['status']}", "wait for its end: noria batch list")
        with output.open("wb") as out:
            for each in filter(None, (told["output_file_id"], told["error_file_id"])):
                out.write(_request(platform, "GET", f"/files/{each}/content").content)
    return told


def row(told: dict[str, Any]) -> list[str]:
    """A batch for people: id, status, lines answered, failed, and all of them."""
    counts = told["request_counts"]
    return [told["id"], told["status"], *(str(counts[name]) for name in ("completed", "failed", "total"))]


def ask(platform: Platform, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request; raises Unavailable when nothing serves, and NoriaError for what the gateway refuses."""
    told: dict[str, Any] = _request(platform, method, path, json=body).json()
    return told


def _request(
    platform: Platform, method: str, path: str, json: Any = None, data: Any = None, files: Any = None
) -> httpx.Response:
    url = address(platform)
    headers = {"authorization": f"Bearer {access.admin_key(platform)}"}
    try:
        answer = httpx.request(
            method, f"{url}/v1{path}", json=json, data=data, files=files, headers=headers, timeout=300, trust_env=False
        )
    except httpx.HTTPError as error:
        raise Unavailable(f"'{url}' does not answer: {error}", "is it up? noria status; start it: noria up") from error
    if answer.status_code != 200:
        raise NoriaError(answer.json()["error"]["message"], "look: noria batch list")
    return answer
