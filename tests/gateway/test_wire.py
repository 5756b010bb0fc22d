"""Bodies as JSON objects, and what is none."""

from __future__ import annotations

import json

import pytest

from noria.errors import Invalid
from noria.gateway.wire import NESTING, SHORT_BYTES, read_object


def nested(levels: int, padding: int) -> bytes:
    return b'{"x": "%b", "deep": %b%b}' % (b"y" * padding, b"[" * levels, b"]" * levels)


@pytest.mark.parametrize("padding", [0, 2 * SHORT_BYTES])
def test_what_is_nested_too_deep_is_refused(padding: int) -> None:
    assert read_object(nested(NESTING - 10, padding))
    with pytest.raises(Invalid, match="nested too deep"):
        read_object(nested(NESTING * 2, padding))


@pytest.mark.parametrize("count", [10, 10 * SHORT_BYTES])
def test_many_brackets_side_by_side_are_fine(count: int) -> None:
    assert len(read_object(json.dumps({"x": [[]] * count, "y": [{}] * count}).encode())["x"]) == count


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"nul", b'"x"', b"\xff"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid, match="JSON"):
        read_object(body)
