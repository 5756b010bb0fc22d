"""How things are named: content digests, ids that sort by time, and refs."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, JsonValue, StringConstraints

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16,64}$")]
"""Lower-case hexadecimal SHA-256, or its first 16 characters where a person must read it."""


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest_of(value: JsonValue) -> str:
    """Content digest of a JSON value: 16 hexadecimal characters, independent of the order of keys."""
    return hashlib.sha256(_CANONICAL.encode(value).encode(errors="surrogatepass")).hexdigest()[:16]


def shelf_key(kind: str, name: str, task: str) -> str:
    """Run key under which the latest of what was made outside of a cycle is found; each names the one before it."""
    return digest_of({"shelf": kind, "name": name, "task": task})


def new_id(at: datetime) -> str:
    """UUID version 7 (RFC 9562) for the time `at`: sortable by creation, 74 random bits."""
    milliseconds = int(at.timestamp() * 1000)
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | (random >> 64 & 0xFFF) << 64
    value |= 0b10 << 62 | random & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Record(BaseModel):
    """Anything that is stored or crosses a wire: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Ref(Record):
    """An immutable name, written `kind:name@digest`."""

    kind: str
    name: str
    digest: Digest

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}@{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Read `kind:name@digest`; raises ValueError for anything else."""
        head, _, digest = text.rpartition("@")
        kind, colon, name = head.partition(":")
        if not (kind and colon and name):
            raise ValueError(f"'{text}' is not a ref of the form kind:name@digest")
        return cls(kind=kind, name=name, digest=digest)
