"""The table of an engine: what excludes what."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from noria.settings import EngineSettings

URL = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({"url": URL, "dtype": "bfloat16"}, "dtype is for an engine that noria launches"),
        ({"url": URL, "flags": []}, "flags is for an engine that noria launches"),
        ({"model": "m", "program": "vllm", "container": "docker"}, "exclude each other"),
        ({"model": "m", "port": 8000, "replicas": 2}, "cannot share one port"),
        ({"model": "m", "dtype": "int3"}, "float32"),
        ({"model": "m", "tools": "--trust-remote-code"}, "pattern"),
        ({"model": "m", "tools": "native"}, "of a launched one its parser"),
        ({"url": URL, "tools": "hermes"}, "of an attached engine is native or schema"),
        ({"model": "m", "memory_share": 1.5}, "less than or equal to 1"),
        ({}, "give either model"),
    ],
)
def test_what_cannot_hold_is_refused(told: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        EngineSettings.model_validate({"kind": "vllm", **told})


def test_an_attached_engine_may_say_what_is_not_about_its_launch() -> None:
    told = EngineSettings.model_validate({"kind": "vllm", "url": URL, "slots": 32, "context": 8192, "loras": 2})
    assert told.slots == 32
    assert EngineSettings.model_validate({"kind": "openai", "url": URL, "tools": "schema"}).tools == "schema"
    assert EngineSettings(kind="vllm", model="m").remote_code is False
