"""The secret that turns names into pseudonyms: whoever has it can tell whose they are."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from noria.errors import Invalid


def read(file: Path) -> bytes:
    """The key in this file, made on first use, readable by its owner only (mode 0600); raises Invalid."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_hex(32))
            out.flush()
            os.fsync(out.fileno())
        # Of two that make it at once, the first one's holds for both.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, file)
        fresh.unlink()
    try:
        key = bytes.fromhex(file.read_text())
    except ValueError as error:
        raise Invalid(f"'{file}' is not hexadecimal", "restore it, or remove it to begin new pseudonyms") from error
    if len(key) < 16:
        raise Invalid(f"'{file}' holds {len(key)} bytes; at least 16 are needed", "restore it from a backup")
    return key
