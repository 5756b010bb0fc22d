"""The environment: the only door to it."""

from __future__ import annotations

import os

from noria.errors import Invalid
from noria.settings.platform import EngineSettings


def environment(name: str, default: str | None = None) -> str | None:
    """One variable of the environment; the only door to it."""
    return os.environ.get(name, default)


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child process, with `extra` set."""
    return {**os.environ, **extra}


def export(**values: str) -> None:
    """Set variables of this process that a library reads at import; those already set by the user stay."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def engine_key(engine: EngineSettings, name: str) -> str:
    """The API key of an attached engine, or `none`; raises Invalid when its variable is not set."""
    if engine.key is None:
        return "none"
    value = environment(engine.key)
    if not value:
        raise Invalid(f"engine '{name}' wants the variable '{engine.key}', which is not set", f"export {engine.key}=…")
    return value
