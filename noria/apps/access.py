"""API keys: made once, shown once, stored as their SHA-256."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Literal, cast

from noria.errors import Invalid
from noria.ports import Platform
from noria.types import ApiKey, new_id

Role = Literal["admin", "developer", "user"]
ROLES = ("admin", "developer", "user")


def make(platform: Platform, name: str, role: str) -> tuple[ApiKey, str]:
    """A new key of 256 random bits; the second value is its text, which is nowhere stored. Raises Invalid."""
    if role not in ROLES:
        raise Invalid(f"there is no role '{role}'", f"one of: {', '.join(ROLES)}")
    if not name or len(name) > 63:
        raise Invalid(f"'{name}' is no name for a key", "1 to 63 characters")
    text = f"noria-{secrets.token_urlsafe(32)}"
    now = platform.clock.now()
    key = ApiKey(
        id=new_id(now),
        name=name,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        prefix=text[:12],
        role=cast(Role, role),
        made=now,
    )
    platform.keys.add(key)
    return key, text


def admin_key(platform: Platform) -> str:
    """The admin key that the command line uses; made at the first start and kept in `.noria/admin.key` (mode 0600)."""
    file = platform.settings.state / "admin.key"
    live = {key.sha256 for key in platform.keys.all() if key.revoked is None}
    if file.is_file():
        text = file.read_text().strip()
        if hashlib.sha256(text.encode()).hexdigest() in live:
            return text
    _, text = make(platform, "admin", "admin")
    _write_private(file, text + "\n")
    return text


def _write_private(file: Path, text: str) -> None:
    fresh = file.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    fresh.replace(file)
