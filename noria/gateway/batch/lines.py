"""The lines of a batch: what a client's file may say, and how answers are written down.

The codes are those of OpenAI's Batch API; a file with any of these faults fails as a whole, before a line is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

FAULTS: Final = 100
"""Faults after which the rest of a file is not looked at."""
CUSTOM_ID_CHARS: Final = 512

Fault = dict[str, Any]
"""A `BatchError`: code, message, param, line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch. `body` is its JSON."""

    custom_id: str
    body: bytes


@dataclass(slots=True)
class Check:
    """Looks at the lines of one file, one after the other."""

    endpoint: str
    most: int
    faults: list[Fault]
    seen: set[str]
    number: int = 0
    cut: bool = False
    """Whether a line was too long, so that the lines after it cannot be told apart."""
    model: str | None = None
    """The model of the first request."""

    @property
    def over(self) -> bool:
        """Whether the rest need not be looked at."""
        return self.cut or len(self.faults) >= FAULTS or len(self.seen) > self.most

    def take(self, text: bytes, whole: bool = True) -> None:
        """Look at the next line; `whole` tells whether it came to its end within the length that is allowed."""
        self.number += 1
        if self.over:
            return
        if not whole:
            self.cut = True
            self._fault("invalid_json_line", "This line is longer than a request may be.")
        elif text.strip():
            self._line(text)

    def finish(self) -> list[Fault]:
        """What is wrong with the file."""
        if len(self.seen) > self.most:
            message = f"The batch has more than {self.most} requests; [gateway] batch_lines is the most."
            return [{"code": "too_many_tasks", "message": message, "param": None, "line": None}]
        if not self.seen and not self.faults:
            message = "The batch has no requests: its input file is empty."
            return [{"code": "empty_file", "message": message, "param": "input_file_id", "line": None}]
        return self.faults

    def _line(self, text: bytes) -> None:
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            self._fault("invalid_json_line", "This line is not parseable as a JSON object.")
            return
        self._name(found.get("custom_id"))
        if found.get("method") != "POST":
            self._fault("invalid_method", "The method of every request must be POST.", "method")
        if found.get("url") != self.endpoint:
            message = f"The url of this request is not the batch's endpoint, {self.endpoint}."
            self._fault("url_mismatch", message, "url")
        body = found.get("body")
        if not isinstance(body, dict):
            self._fault("missing_required_parameter", "Missing required parameter: 'body', an object.", "body")
            return
        if body.get("stream") is True:
            self._fault("invalid_request", "Answers to a batch cannot be streamed.", "body.stream")
        if self.model is None and isinstance(body.get("model"), str):
            self.model = body["model"]

    def _name(self, name: object) -> None:
        if not isinstance(name, str) or not name:
            self._fault("missing_required_parameter", "Missing required parameter: 'custom_id'.", "custom_id")
        elif len(name) > CUSTOM_ID_CHARS:
            message = f"This custom_id is longer than {CUSTOM_ID_CHARS} characters."
            self._fault("invalid_custom_id", message, "custom_id")
        elif name in self.seen:
            message = f"The custom_id '{name[:64]}' comes twice; it must be unique in a batch."
            self._fault("duplicate_custom_id", message, "custom_id")
        else:
            self.seen.add(name)

    def _fault(self, code: str, message: str, param: str | None = None) -> None:
        if len(self.faults) < FAULTS:
            self.faults.append({"code": code, "message": message, "param": param, "line": self.number})


def read_line(text: bytes) -> Line:
    """A line of a file that was checked."""
    found = orjson.loads(text)
    return Line(found["custom_id"], orjson.dumps(found["body"]))


def answered(custom_id: str, status: int, request: str, body: bytes) -> bytes:
    """An answer, right or wrong, as one line of the output or of the error file."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = {"text": body.decode(errors="replace")}
    response = {"status_code": status, "request_id": request, "body": said}
    return _result(custom_id, request, response, None)


def unanswered(custom_id: str, code: str, message: str) -> bytes:
    """A request that nobody was asked, as one line of the error file."""
    return _result(custom_id, custom_id, None, {"code": code, "message": message})


def usage_of(found: Mapping[str, Any]) -> tuple[int, int]:
    """Prompt and completion tokens in a line of the output file."""
    response = found.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return 0, 0
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    return prompt if isinstance(prompt, int) else 0, completion if isinstance(completion, int) else 0


def _result(custom_id: str, request: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    identity = f"batch_req_{request.replace('-', '')[:64]}"
    told = {"id": identity, "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(told) + b"\n"
