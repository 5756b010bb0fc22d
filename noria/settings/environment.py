"""The environment: the only door to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from noria.errors import Invalid
from noria.settings.platform import EngineSettings

_PLAIN = frozenset(
    [
        "PATH",
        "HOME",
        "LANG",
        "LANGUAGE",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "SSL_CERT_FILE",
    ]
)


def environment(name: str, default: str | None = None) -> str | None:
    """One variable of the environment; the only door to it."""
    return os.environ.get(name, default)


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child process, with `extra` set."""
    return {**os.environ, **extra}


def bare_environment(names: Sequence[str]) -> dict[str, str]:
    """The environment for a child that is to see no secrets: what every program needs, and the variables `names`.

    Raises Invalid for one of these that is not set.
    """
    if missing := [name for name in names if name not in os.environ]:
        raise Invalid(f"the variable '{missing[0]}' is not set", f"export {missing[0]}=…")
    return {name: value for name, value in os.environ.items() if name in _PLAIN or name in names}


def export(**values: str) -> None:
    """Set variables of this process that a library reads at import; those already set by the user stay."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


@contextmanager
def lent(**values: str) -> Iterator[None]:
    """Set variables that a library looks for while it works, and take them back; those set by the user stay."""
    missing = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def engine_key(engine: EngineSettings, name: str) -> str:
    """The API key of an attached engine, or `none`; raises Invalid when its variable is not set."""
    if engine.key is None:
        return "none"
    value = environment(engine.key)
    if not value:
        raise Invalid(f"engine '{name}' wants the variable '{engine.key}', which is not set", f"export {engine.key}=…")
    return value
