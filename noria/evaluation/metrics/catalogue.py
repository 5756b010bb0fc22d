"""Metrics by name: what the entry points of the group `noria.metrics` offer, noria's own among them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from noria.errors import Invalid, NoriaError
from noria.evaluation.metrics.metric import Answered, Metric, mean_of
from noria.settings import known
from noria.types import Metrics

GROUP = "noria.metrics"


def names() -> list[str]:
    """Every metric that is installed, in order of the alphabet."""
    return sorted(_doors())


@cache
def find(name: str) -> Metric:
    """The metric of this name.

    An entry point leads to a `Metric`, or to a plain function, which then is averaged (`mean_of`). Raises Invalid for
    an unknown name, and for an entry point that leads to neither or cannot be imported.
    """
    doors = _doors()
    if name not in doors:
        raise Invalid(f"there is no metric '{name}'", known(name, doors))
    door = doors[name]
    hint = f"look at the entry point {name} = '{door.value}' of the group {GROUP}"
    hint += f" of package '{door.dist.name}'" if door.dist else ""
    try:
        found = door.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise Invalid(f"metric '{name}' cannot be imported: {error}", hint) from error
    if isinstance(found, Metric):
        return replace(found, name=name)
    if inspect.isfunction(found):
        try:
            return mean_of(found, name=name)
        except NoriaError as error:
            raise Invalid(error.fact, f"{error.hint}; {hint}") from error
    raise Invalid(f"metric '{name}' is '{found!r}', neither a function nor a Metric", hint)


def check(wanted: Sequence[str], where: str) -> None:
    """Raise Invalid for a metric that does not exist or is wrong."""
    for name in wanted:
        try:
            find(name)
        except Invalid as error:
            raise Invalid(error.fact, error.hint, where=where) from error


def score(answer: Answered, wanted: Sequence[str]) -> Metrics:
    """The named metrics of one answer by itself."""
    return {name: round(find(name).each([answer])[0], 6) for name in wanted}


def _doors() -> dict[str, EntryPoint]:
    return {door.name: door for door in entry_points(group=GROUP)}
