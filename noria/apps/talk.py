"""A question to what serves, over its own HTTP door."""

from __future__ import annotations

import json

import httpx

from noria.apps import access
from noria.errors import NoriaError, Unavailable
from noria.ports import Platform


def ask(platform: Platform, task: str, question: str) -> dict[str, str]:
    """One answer, with its id and who served it; raises Unavailable when nothing serves."""
    url = address(platform)
    body = {"model": task, "messages": [{"role": "user", "content": question}]}
    headers = {"authorization": f"Bearer {access.admin_key(platform)}"}
    try:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=120, trust_env=False)
    except httpx.HTTPError as error:
        raise Unavailable(f"'{url}' does not answer: {error}", "is it up? noria status; start it: noria up") from error
    told = answer.json()
    if answer.status_code != 200:
        raise NoriaError(told["error"]["message"], "look: noria status")
    return {
        "answer": told["choices"][0]["message"]["content"],
        "id": answer.headers["x-noria-interaction"],
        "served_by": answer.headers["x-noria-served-by"],
    }


def address(platform: Platform) -> str:
    """URL of the running data plane; raises Unavailable when the project is not up."""
    file = platform.settings.state / "up.json"
    if not file.is_file():
        raise Unavailable("nothing serves here", "start it: noria up")
    return str(json.loads(file.read_text())["data"])
