"""What a comparison found: as rows for machines, as a page for people, as an artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from noria.evaluation import advice, page, shelf, sizing, slices
from noria.evaluation.front import Front
from noria.evaluation.history import COMPARISON
from noria.evaluation.measured import Measured
from noria.evaluation.page import sections
from noria.evaluation.page.markup import Html, el, join
from noria.evaluation.page.plots import Bar, Dot, forest, scatter
from noria.evaluation.sides import Side
from noria.ports import Platform
from noria.types import Artifact, Interval, Ref, Report


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one side by itself: mean over the rows with its interval."""

    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The sides, the first of which is what each of the others is paired with, in their order.

    `scores` are by side and metric, `measured` by the side's ref; `margin` is the gate's.
    """

    task: str
    margin: float
    dataset: Ref
    sides: tuple[Side, ...]
    pairs: tuple[Report, ...]
    scores: tuple[tuple[Score, ...], ...]
    measured: Mapping[str, Measured] = field(default_factory=dict)
    front: Front | None = None
    notes: tuple[str, ...] = ()
    """What is to be told of those that could not take part."""


def overall(pair: Report) -> dict[str, Interval]:
    """Paired intervals over the task's own rows, or over the only other slices that there are."""
    return pair.intervals.get("all") or next(iter(pair.intervals.values()))


def verdict(each: Interval, margin: float) -> str:
    """What a paired interval says: better, worse, not worse (than the margin) or inconclusive."""
    low, high = (each.low, each.high) if each.higher_is_better else (-each.high, -each.low)
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "not worse" if low > -margin else "inconclusive"


def rows(of: Comparison) -> list[dict[str, JsonValue]]:
    """A row for each side and metric, in the form that `noria compare --json` promises; None is not measured."""
    told: list[dict[str, JsonValue]] = []
    for number, (side, scores) in enumerate(zip(of.sides, of.scores, strict=True)):
        took = of.measured.get(side.ref)
        for score in scores:
            paired = overall(of.pairs[number - 1])[score.metric] if number else None
            told.append(
                {
                    "candidate": side.ref, "kind": side.kind, "metric": score.metric, "value": score.value,
                    "low": score.low, "high": score.high, "p50_ms": took.p50_ms if took else None,
                    "memory_gib": took.memory_gib if took else None,
                    "cost_per_1000": took.cost_per_1000 if took else None,
                    "wh_per_1000": took.wh_per_1000 if took else None,
                    "verdict": verdict(paired, of.margin) if paired else None,
                    "side": side.word, "engine": side.candidate.engine,
                    "front": of.front is not None and number in of.front.members,
                    "chosen": of.front is not None and number == of.front.chosen,
                }
            )  # fmt: skip
    return told


def pairs(of: Comparison) -> list[dict[str, JsonValue]]:
    """Each side paired with the first: gains with intervals by slice, groups, and advice, ready for JSON."""
    told: list[dict[str, JsonValue]] = []
    for side, pair in zip(of.sides[1:], of.pairs, strict=True):
        groups = slices.groups(pair)
        gains: dict[str, JsonValue] = {
            group: [each.model_dump(mode="json") for each in metrics.values()]
            for group, metrics in pair.intervals.items()
        }
        told.append(
            {
                "champion": of.sides[0].ref, "candidate": side.ref, "side": side.word, "rows": len(pair.rows),
                "gains": gains, "groups": [each.told() for each in groups],
                "advice": [each.told() for each in _advice(of, pair, groups)],
            }
        )  # fmt: skip
    return told


def told(of: Comparison) -> dict[str, JsonValue]:
    """The whole comparison as JSON, without the rows' texts."""
    measured: dict[str, JsonValue] = {ref: each.model_dump(mode="json") for ref, each in of.measured.items()}
    return {
        "rows": list(rows(of)), "task": of.task, "dataset": str(of.dataset), "margin": of.margin,
        "sides": [side.word for side in of.sides], "pairs": list(pairs(of)), "measured": measured,
        "front": of.front.told([side.ref for side in of.sides]) if of.front else None,
        "advice": [each.told() for each in sizing.advice(of.sides, of.front, of.measured)] if of.front else [],
        "notes": list(of.notes),
    }  # fmt: skip


def keep(platform: Platform, of: Comparison, began: float) -> Artifact:
    """Store it with all its rows and its page as `comparison:TASK@…`; their answers need not be asked for again."""
    now = platform.clock.now()
    folder = platform.lake.scratch(f"comparison-{now:%Y%m%d%H%M%S%f}")
    whole = {"at": now.isoformat(), **told(of)}
    (folder / "comparison.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1))
    for number, pair in enumerate(of.pairs, 1):
        (folder / f"report-{number}.json").write_text(pair.model_dump_json(indent=1))
    (folder / "report.html").write_text(drawn(of))
    meta: dict[str, JsonValue] = {
        "candidates": [side.ref for side in of.sides], "at": now.isoformat(), "dataset": str(of.dataset),
    }  # fmt: skip
    return shelf.put(platform, COMPARISON, of.task, of.task, folder, meta, began)


def drawn(of: Comparison) -> str:
    """The comparison as one HTML page."""
    first = of.sides[0]
    title = f"{of.task}: {', '.join(side.word for side in of.sides[1:])} against {first.word}"
    parts: list[Html | None] = [_overview(of), _sized(of), _map(of)]
    for side, pair in zip(of.sides[1:], of.pairs, strict=True):
        groups = slices.groups(pair)
        metric = slices.first_metric(pair)
        parts += [
            el("h2", f"{side.word} against {first.word}") if len(of.pairs) > 1 else None,
            sections.advices(_advice(of, pair, groups)),
            sections.gains(pair),
            sections.grouped(groups),
            sections.examples(pair, metric) if metric else None,
        ]
    parts.append(sections.costs({side.word: of.measured.get(side.ref) for side in of.sides}))
    refs = [(side.word, side.ref) for side in of.sides] + [("dataset", str(of.dataset))]
    parts.append(sections.provenance(refs, {}))
    parts.append(sections.again([f"noria compare --task {of.task} {' '.join(side.word for side in of.sides)}"]))
    return page.assembled(title, *parts)


@dataclass(frozen=True, slots=True)
class Point:
    """One side in a picture: what it takes, its score with its bounds, and how it stands to the front."""

    label: str
    across: float
    value: float
    low: float
    high: float
    member: bool
    chosen: bool


def points(of: Comparison) -> tuple[list[Point], str, str]:
    """The sides as points, with what lies across (cost where it is known of all that were measured) and up."""
    took = [of.measured.get(side.ref) for side in of.sides]
    costs = [each.cost_per_1000 if each else None for each in took]
    times = [each.p50_ms if each else None for each in took]
    by_cost = sum(cost is not None for cost in costs) >= sum(time is not None for time in times) and any(costs)
    across = "cost of 1,000 answers" if by_cost else "p50 latency, ms"
    metric = of.front.metric if of.front else of.scores[0][0].metric
    found = []
    for place, (side, where) in enumerate(zip(of.sides, costs if by_cost else times, strict=True)):
        score = next(each for each in of.scores[place] if each.metric == metric)
        if where is not None:
            member, chosen = (place in of.front.members, place == of.front.chosen) if of.front else (False, False)
            found.append(Point(side.word, where, score.value, score.low, score.high, member, chosen))
    return found, across, metric


def _advice(of: Comparison, pair: Report, groups: Sequence[slices.Group]) -> list[advice.Advice]:
    return advice.of(pair, advice.Known(margin=of.margin, groups=groups))


def _overview(of: Comparison) -> Html:
    metric = of.scores[0][0].metric
    bars = [
        Bar(f"{side.word} ({side.kind})", own[0].low, own[0].value, own[0].high,
            f"{own[0].value:.3f} [{own[0].low:.3f}, {own[0].high:.3f}]", "even")
        for side, own in zip(of.sides, of.scores, strict=True)
    ]  # fmt: skip
    told_rows = [
        [str(row["side"]), str(row["kind"]), str(row["metric"]), f"{row['value']:.4f}", f"{row['low']:.4f}",
         f"{row['high']:.4f}", str(row["verdict"] or "")]
        for row in rows(of)
    ]  # fmt: skip
    columns = ["side", "kind", "metric", "value", "low", "high", f"against {of.sides[0].word}"]
    return join(
        el("h2", "Side by side"),
        forest(bars, f"Mean {metric} of each side by itself, with its interval. Pairs tell more: see the gains.",
               zero=False),
        sections.table(columns, told_rows, numbers=(3, 4, 5)),
    )  # fmt: skip


def _sized(of: Comparison) -> Html | None:
    """The front in words."""
    if of.front is None:
        return None
    members = [of.sides[place].word for place in of.front.members]
    told = (
        f"Not worse than the best by more than {of.front.margin:g} in {of.front.metric} (all of it together with a "
        f"chance of error of {of.front.risk:g}): {', '.join(members)}."
    )
    found = sizing.advice(of.sides, of.front, of.measured)
    return join(el("h2", "Which is enough"), el("p", told), sections.advices(found) if found else None)


def _map(of: Comparison) -> Html | None:
    found, across, metric = points(of)
    if len(found) < 2:
        return None
    dots = [Dot(each.label, each.across, each.value) for each in found]
    return scatter(dots, across, metric, "Quality and what it takes together: left takes less.")
