"""Signatures of files that somebody vouches for, with a key of the project's own."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from noria.apps.access import write_private
from noria.datasets.poisoning import KEY, rows_of
from noria.errors import NotFound
from noria.guards.signature import SUFFIX
from noria.guards.signature import sign as signature_of
from noria.ports import Platform


def sign(platform: Platform, file: Path) -> dict[str, Any]:
    """Write `FILE.sig` beside a file of trusted rows; the key is made at first use, in `.noria/sign.key` (mode 0600).

    Raises NotFound, and Invalid for a file that holds no questions and answers.
    """
    if not file.is_file():
        raise NotFound(f"there is no file '{file}'", "name a JSONL file with question and answer")
    data = file.read_bytes()
    rows = len(list(rows_of(data, file.name)))
    key = platform.settings.state / KEY
    if not key.is_file():
        key.parent.mkdir(exist_ok=True)
        write_private(key, secrets.token_hex(32))
    beside = file.with_name(file.name + SUFFIX)
    beside.write_text(signature_of(key.read_bytes(), data) + "\n", encoding="utf-8")
    return {"file": str(file), "rows": rows, "signature": beside.name}
