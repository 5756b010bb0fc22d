"""noria.toml read again while noria serves."""

from __future__ import annotations

from dataclasses import replace

from noria.errors import Invalid
from noria.ports import Platform
from noria.settings import load
from noria.wiring import engine_kinds


def platform(current: Platform) -> Platform:
    """The platform with the file's present settings; raises Invalid or NotFound, and then nothing has changed.

    Addresses, back-ends and the number of workers are taken at the start only: changing them is refused.
    """
    was, now = current.settings, load(current.settings.file)
    fixed = (
        ("project", was.project == now.project),
        ("runtime", was.runtime == now.runtime),
        ("gateway.workers", was.gateway.workers == now.gateway.workers),
    )
    for name, same in fixed:
        if not same:
            raise Invalid(
                f"'{name}' cannot change while noria serves", "stop noria up and start it again",
                where=now.place(*name.split(".")),
            )  # fmt: skip
    kinds = {**engine_kinds(now), **current.engines}
    for engine in now.engines.values():
        if engine.model is not None:
            # What is no model must show here, where the old settings are still in use.
            kinds[engine.kind].base(engine)
    return replace(current, settings=now, engines=kinds)
