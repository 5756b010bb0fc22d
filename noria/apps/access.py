"""API keys: made once, shown once, stored as their SHA-256."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast

from pydantic import JsonValue

from noria.errors import Conflict, Invalid
from noria.ports import Platform
from noria.settings import LimitSettings, environment, known
from noria.types import ApiKey, new_id

Role = Literal["admin", "developer", "user"]
ROLES = ("admin", "developer", "user")


ADMIN_VARIABLE = "NORIA_ADMIN_KEY"
"""Holds the text of the admin key where many machines share one ledger, and none is to make one of its own."""
LEAST_CHARACTERS = 32


def make(
    platform: Platform,
    name: str,
    role: str,
    models: Sequence[str] = (),
    limits: LimitSettings | None = None,
    given: str | None = None,
) -> tuple[ApiKey, str]:
    """A new key of 256 random bits, or `given`; the second value is its text, which is nowhere stored. Raises Invalid.

    Without `models` it may ask all that its role may; without `limits` those of [gateway] hold.
    """
    if role not in ROLES:
        raise Invalid(f"there is no role '{role}'", f"one of: {', '.join(ROLES)}")
    if not name or len(name) > 63:
        raise Invalid(f"'{name}' is no name for a key", "1 to 63 characters")
    tasks = platform.settings.tasks
    for model in models:
        # Base models and adapters, which a developer may ask, are known only once their engine runs.
        if not model or (role == "user" and model not in tasks):
            raise Invalid(
                f"there is no task '{model}', and a key of role 'user' may ask tasks only", known(model, tasks)
            )
    text = given or f"noria-{secrets.token_urlsafe(32)}"
    now = platform.clock.now()
    key = ApiKey(
        id=new_id(now),
        name=name,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        prefix=text[:12],
        role=cast(Role, role),
        made=now,
        models=tuple(dict.fromkeys(models)),
        limits={} if limits is None else limits.model_dump(mode="json", exclude_none=True),
    )
    platform.keys.add(key)
    return key, text


def revoke(platform: Platform, which: str) -> str:
    """End the life of a key: its id, or the name of the only live key that is called so. Returns the id.

    Raises NotFound, and Invalid where several are called so.
    """
    named = [key.id for key in platform.keys.all() if key.name == which and key.revoked is None]
    if len(named) > 1:
        raise Invalid(f"{len(named)} live keys are called '{which}'", f"say which: {', '.join(named)}")
    identity = named[0] if named else which
    platform.keys.revoke(identity, platform.clock.now())
    return identity


def admin_key(platform: Platform) -> str:
    """The admin key that the command line uses; made at the first start and kept in `.noria/admin.key` (mode 0600).

    Where NORIA_ADMIN_KEY holds one, that is it. Raises Invalid where that is short, was revoked or has another role.
    """
    # A file of a secret often ends with a line break.
    if given := (environment(ADMIN_VARIABLE) or "").strip():
        return _given(platform, given)
    file = platform.settings.state / "admin.key"
    live = {key.sha256 for key in platform.keys.all() if key.revoked is None}
    if file.is_file():
        text = file.read_text().strip()
        if hashlib.sha256(text.encode()).hexdigest() in live:
            return text
    _, text = make(platform, "admin", "admin")
    write_private(file, text + "\n")
    return text


def _given(platform: Platform, text: str) -> str:
    if len(text) < LEAST_CHARACTERS:
        raise Invalid(
            f"{ADMIN_VARIABLE} has {len(text)} characters", f"at least {LEAST_CHARACTERS}: openssl rand -hex 32"
        )
    digest = hashlib.sha256(text.encode()).hexdigest()
    if not any(key.sha256 == digest for key in platform.keys.all()):
        # Of machines that start at the same time one makes it.
        with suppress(Conflict):
            make(platform, "admin", "admin", given=text)
    found = next(key for key in platform.keys.all() if key.sha256 == digest)
    if found.role != "admin":
        raise Invalid(f"the key in {ADMIN_VARIABLE} has the role '{found.role}'", "make another: openssl rand -hex 32")
    if found.revoked is not None:
        raise Invalid(f"the key in {ADMIN_VARIABLE} was revoked", "put a new one there: openssl rand -hex 32")
    return text


def write_private(file: Path, text: str) -> None:
    """Write a secret where its owner alone can read it, whole or not at all."""
    fresh = file.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    fresh.replace(file)


def shown(limits: Mapping[str, JsonValue]) -> str:
    """A key's limits in a table, such as `60 requests/minute, 8 streams`; empty where [gateway] decides."""
    return ", ".join(f"{value} {name.replace('_per_', '/')}" for name, value in limits.items())
