"""What a comparison of all kinds calls for, in words: the smallest that is enough, or a stronger one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from noria.evaluation.advice import Advice
from noria.evaluation.front import Front
from noria.evaluation.measured import Measured
from noria.evaluation.sides import Side

UNTRAINED = ("base", "attached", "few-shot", "prompt")
"""Kinds for which nothing was trained."""


def advice(sides: Sequence[Side], front: Front, measured: Mapping[str, Measured]) -> list[Advice]:
    """What follows from the front, the most pressing first. The first side is what serves."""
    rules = (_take(sides, front, measured), _unsure(sides, front), _encoder(sides, front), _stronger(sides, front))
    return [each for each in rules if each is not None]


def _take(sides: Sequence[Side], front: Front, measured: Mapping[str, Measured]) -> Advice | None:
    chosen, now = sides[front.chosen], sides[0]
    evidence = {"chosen": chosen.ref, "by": front.by, "margin": front.margin}
    if front.chosen == 0:
        return Advice(
            "smallest-enough",
            f"nothing cheaper than '{now.word}' is certainly not worse than the best by more than {front.margin:g}",
            "keep it",
            evidence,
        )
    best = sides[front.best]
    fact = f"'{chosen.word}' has the best {front.metric}, and no cheaper one was shown to be as good"
    if front.by is not None and front.chosen != front.best:
        saved = _saved(front.by, measured[best.ref], measured[chosen.ref])
        fact = f"'{chosen.word}' is not worse than '{best.word}' by more than {front.margin:g}, {saved}"
    return Advice("smallest-enough", fact, _how(chosen, now), evidence)


def _how(chosen: Side, now: Side) -> str:
    """What to do so that it serves."""
    task, engine = chosen.candidate.task, chosen.candidate.engine
    gate = 'gate = { goal = "cheaper" } takes what is not worse and costs less'
    if engine != now.candidate.engine and chosen.kind == "attached":
        return f"it is somebody else's server: send it a share of the traffic with [tasks.{task}.arms.NAME]"
    if engine != now.candidate.engine:
        return f'write engine = "{engine}" and its model as base into [tasks.{task}], then noria run; {gate}'
    if chosen.candidate.adapter is None:
        return f"nothing that was learned is needed: noria rollback --task {task}, or noria hold --task {task}"
    return (
        f"noria promote {chosen.ref}, where a cycle has reported on it; else recipe = "
        f'{{ kind = "{chosen.kind}" }} in [tasks.{task}], then noria run; {gate}'
    )


def _saved(by: str, best: Measured, chosen: Measured) -> str:
    field = {"cost": "cost_per_1000", "energy": "wh_per_1000", "latency": "p50_ms"}[by]
    before, after = float(getattr(best, field)), float(getattr(chosen, field))
    return f"at {after / before:.0%} of its {by}" if before > 0 else f"and has the least {by}"


def _unsure(sides: Sequence[Side], front: Front) -> Advice | None:
    open_ = [side.word for place, side in enumerate(sides) if place not in front.members]
    if not open_ or front.needed is None:
        return None
    return Advice(
        "too-few-rows",
        f"{front.rows} sealed rows cannot show of {', '.join(open_)} that no more than {front.margin:g} would be lost",
        f"about {max(0, front.needed - front.rows)} more sealed rows would, if the differences stay as they are; "
        "or say with gate.margin that more may be lost",
        {"rows": front.rows, "needed": front.needed, "open": [*open_]},
    )


def _encoder(sides: Sequence[Side], front: Front) -> Advice | None:
    there = [place for place, side in enumerate(sides) if side.kind == "encoder"]
    if not there:
        return None
    enough = any(place in front.members for place in there)
    fact = "an encoder is not certainly worse" if enough else "an encoder was not shown to be enough"
    told = "an encoder would do the job: it needs no graphics card and gives classes, not texts"
    return Advice(
        "encoder", fact, told if enough else "keep a decoder, or label more rows for the encoder",
        {"candidates": [sides[place].ref for place in there]},
    )  # fmt: skip


def _stronger(sides: Sequence[Side], front: Front) -> Advice | None:
    best, now = sides[front.best], sides[0]
    other = best.candidate.base != now.candidate.base
    if not other or 0 in front.members or best.kind not in UNTRAINED:
        return None
    return Advice(
        "stronger-model",
        f"'{best.word}' is the best without any training, on base '{best.candidate.base.name}'",
        "a stronger model changes more than more training of a small one does",
        {"candidate": best.ref},
    )
