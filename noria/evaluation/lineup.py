"""Who takes part in a comparison where nobody is named: one candidate of every kind that can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from noria.errors import NoriaError
from noria.evaluation.sides import Side, barred, kind_of, plain, side_of
from noria.ports import Platform
from noria.types import Candidate, Ref


def lineup(
    platform: Platform, name: str, candidates: Mapping[str, Candidate], dataset: Ref
) -> tuple[list[Side], list[str]]:
    """The sides, and why what could have been one is not.

    They are the champion, the base model as it is, the newest candidate of each kind of recipe that reports know, and
    the base model of every engine that noria launches. `candidates` are those of reports, newest first.
    """
    settings, task = platform.settings, platform.settings.tasks[name]
    sides, notes = [side_of(platform, name, "champion", candidates, dataset)], list[str]()
    seen = {sides[0].ref}
    kinds = {sides[0].kind} if sides[0].candidate.adapter is not None else set[str]()

    def add(side: Side) -> None:
        if side.ref not in seen:
            seen.add(side.ref)
            sides.append(side)

    add(side_of(platform, name, "base", candidates, dataset))
    for word, candidate in candidates.items():
        kind = kind_of(platform, candidate)
        if candidate.adapter is None or kind in kinds or word in seen:
            continue
        if why := barred(platform, task, candidate):
            notes.append(f"'{word}' ({kind}) is left out: {why}")
            continue
        kinds.add(kind)
        add(Side(kind, candidate, kind))
    for engine, table in settings.engines.items():
        if table.url is not None or engine == task.engine:
            continue
        try:
            add(Side(f"engine:{engine}", plain(platform, name, engine, dataset), "base"))
        except NoriaError as error:
            notes.append(f"engine '{engine}' is left out: {error.fact}")
    return sides, notes


def of_kinds(sides: Sequence[Side], kinds: Sequence[str]) -> tuple[list[Side], list[str]]:
    """Those of the sides that are of these kinds, and the kinds that none is of.

    A kind is a recipe's, or `base`, or the word for a side, such as `engine:big`.
    """
    there = {name for side in sides for name in (side.kind, side.word)}
    wanted = [side for side in sides if side.kind in kinds or side.word in kinds]
    return wanted, [kind for kind in kinds if kind not in there]
