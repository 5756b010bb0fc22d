"""Rules of thumb about a report, each with the evidence that triggered it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pydantic import JsonValue

from noria.evaluation.slices import MIN_ROWS, Group, first_metric
from noria.types import Interval, Report, RowScore

SMALL = 3e9
"""Parameters below which a base model counts as small."""
PROMPTS = 3
"""Prompts tried on one base, without a certain gain, from which more prompting is not advised."""
PLATEAU = 0.02
"""A training whose loss fell by less than this share over its last third had nothing more to learn."""
MEMORISED = 0.1
"""Nats per token; a loss below it on rows that are repeated means they are known by heart."""
UNCHANGED = 0.9
LOW = 0.5
"""Mean score below which most answers are not what was wanted, for metrics in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do next: the rule's name, the fact that triggered it, the advice, and the numbers behind the fact."""

    rule: str
    fact: str
    advice: str
    evidence: Mapping[str, JsonValue]

    def told(self) -> dict[str, JsonValue]:
        """As JSON."""
        return {"rule": self.rule, "fact": self.fact, "advice": self.advice, "evidence": dict(self.evidence)}


@dataclass(frozen=True, slots=True)
class Tried:
    """An earlier candidate of the task: its prompt, base and adapter, and whether it was certainly better."""

    prompt: str
    base: str
    adapter: str | None
    better: bool


@dataclass(frozen=True, slots=True)
class Known:
    """What the rules look at beside the report; what is not known triggers nothing.

    `tried` are earlier candidates, oldest first, and `losses` those of the training that made the candidate, in nats
    per token, step by step. `margin` is that of the gate.
    """

    margin: float = 0.02
    tried: Sequence[Tried] = ()
    losses: Sequence[float] = ()
    groups: Sequence[Group] = field(default_factory=tuple)


Rule = Callable[[Report, Interval, Known], Advice | None]


def of(report: Report, known: Known | None = None) -> list[Advice]:
    """What the report and what is known beside it call for, the most pressing first."""
    metric = first_metric(report)
    overall = report.intervals.get("all", {}).get(metric) if metric else None
    if overall is None:
        return []
    given = known or Known()
    return [found for rule in RULES if (found := rule(report, overall, given)) is not None]


def rows_needed(interval: Interval, margin: float) -> int | None:
    """How many rows it would take in all to show a gain above minus `margin`; None where the gain is not above it.

    An interval shrinks with the root of the number of rows; the gain is taken to stay what it is.
    """
    gain, low = _oriented(interval)
    if gain <= -margin:
        return None
    # A hair more than its own share, or a bound that falls on the margin would count as shown.
    return math.ceil(interval.rows * ((gain - low) / (gain + margin)) ** 2) + 1


def certified(interval: Interval) -> float:
    """Smallest margin that the rows certify: the candidate does not lose more than this, at the interval's level."""
    return max(0.0, -_oriented(interval)[1])


def parameters(name: str) -> float | None:
    """How many parameters a base model has by its own name (`qwen2.5-7b`, `smollm2-135m`), else None."""
    found = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", name.lower())
    return float(found[1]) * {"b": 1e9, "m": 1e6}[found[2]] if found else None


def _too_few_rows(report: Report, overall: Interval, known: Known) -> Advice | None:
    gain, low = _oriented(overall)
    if low > 0 or gain <= -known.margin:
        return None
    least = certified(overall)
    # A gain is shown against 0; where there is none, what can be shown is that no more than the margin is lost.
    margin = 0.0 if gain > 0 else known.margin
    needed = rows_needed(overall, margin) or overall.rows
    more = max(0, needed - overall.rows)
    shown = "a gain" if gain > 0 else f"that no more than {known.margin:g} is lost"
    return Advice(
        "too-few-rows",
        f"{overall.rows} rows cannot show a gain; the smallest loss that they can rule out is {least:.3f}",
        f"about {more} more sealed rows would show {shown}, if {overall.name} stays as it is: label more, "
        "or gather more corrections"
        if more
        else f"they do show {shown}: look at what the candidate costs",
        {"rows": overall.rows, "certified": round(least, 6), "margin": known.margin, "needed": needed, "more": more},
    )


def _lost_groups(report: Report, overall: Interval, known: Known) -> Advice | None:
    lost = [each for each in known.groups if each.worse]
    if not lost:
        return None
    worst = lost[0]
    return Advice(
        "lost-groups",
        f"the candidate is worse on {len(lost)} of {len(known.groups)} groups, surest on {worst.name} "
        f"({worst.interval.gain:+.3f} on {worst.interval.rows} rows)",
        "add training rows like them, or guard them: give their source a slice of its own",
        {"groups": [each.name for each in lost]},
    )


def _few_in_a_group(report: Report, overall: Interval, known: Known) -> Advice | None:
    counts: dict[str, int] = {}
    for row in report.rows:
        if "language" in row.tags:
            counts[row.tags["language"]] = counts.get(row.tags["language"], 0) + 1
    few = {name: count for name, count in sorted(counts.items()) if 1 < count < MIN_ROWS}
    if not few or len(counts) < 2:
        return None
    told = ", ".join(f"{name} {count}" for name, count in few.items())
    return Advice(
        "unjudged-languages",
        f"languages with too few rows to judge: {told}",
        f"a loss there would not be seen; seal at least {MIN_ROWS} rows of each that matters",
        {"rows": {**few}, "needed": MIN_ROWS},
    )


def _same_answers(report: Report, overall: Interval, known: Known) -> Advice | None:
    share = fmean(row.champion == row.candidate for row in report.rows) if report.rows else 0.0
    if share < UNCHANGED or report.candidate == report.champion:
        return None
    return Advice(
        "same-answers",
        f"{share:.0%} of the answers are the champion's, word for word",
        "the candidate has hardly moved: more epochs, a higher learning rate, more layers, or more new rows",
        {"share": round(share, 4)},
    )


def _prompted_long(report: Report, overall: Interval, known: Known) -> Advice | None:
    base = str(report.candidate.base)
    prompts = {each.prompt for each in known.tried if each.base == base and each.adapter is None}
    prompts |= {report.candidate.prompt} if report.candidate.adapter is None else set()
    won = any(each.better for each in known.tried if each.base == base and each.adapter is None)
    if len(prompts) < PROMPTS or won or _oriented(overall)[1] > 0:
        return None
    return Advice(
        "long-prompt-tuning",
        f"{len(prompts)} prompts were tried on '{report.candidate.base.name}', none of them certainly better",
        "long prompt tuning means that the model is too weak: fine-tune it, or take a stronger one",
        {"prompts": len(prompts), "base": base},
    )


def _overfitted(report: Report, overall: Interval, known: Known) -> Advice | None:
    third = len(known.losses) // 3
    if third < 3 or _oriented(overall)[1] > 0:
        return None
    middle, last = fmean(known.losses[third : 2 * third]), fmean(known.losses[-third:])
    flat = middle - last < PLATEAU * max(middle, 1e-9)
    if last > MEMORISED and not flat:
        return None
    why = f"is down to {last:.3f}" if last <= MEMORISED else f"stopped falling at {last:.3f}"
    return Advice(
        "stop-before-overfitting",
        f"the training loss {why}, and the sealed rows show no certain gain",
        "more of the same training would learn the rows by heart: stop earlier (fewer epochs), or add other rows",
        {"loss": round(last, 4), "loss_before": round(middle, 4), "gain": overall.gain, "low": overall.low},
    )


def _stronger(report: Report, overall: Interval, known: Known) -> Advice | None:
    low = _oriented(overall)[1]
    bounded = all(0 <= value <= 1 for value in (overall.before, overall.after))
    if low > 0 or not bounded or not overall.higher_is_better or overall.after >= LOW:
        return None
    size = parameters(report.candidate.base.name)
    small = size is not None and size < SMALL
    told = f"; '{report.candidate.base.name}' is small" if small else ""
    return Advice(
        "stronger-model",
        f"the mean {overall.name} is {overall.after:.2f} and did not certainly rise{told}",
        "a stronger model may change everything"
        + (", all the more so for small models" if small else "")
        + ": try one on the same rows with noria compare champion engine:NAME",
        {"value": overall.after, "low": overall.low, "parameters": size},
    )


def _one_voice(report: Report, overall: Interval, known: Known) -> Advice | None:
    rows: Sequence[RowScore] = report.rows
    voices = len({row.conversation for row in rows})
    if len(rows) < 2 * MIN_ROWS or voices > len(rows) / 4:
        return None
    return Advice(
        "few-conversations",
        f"{len(rows)} rows come from {voices} conversations only",
        "rows of one conversation say nearly the same: conversations count, so gather more of them",
        {"rows": len(rows), "conversations": voices},
    )


RULES: tuple[Rule, ...] = (
    _lost_groups, _too_few_rows, _overfitted, _same_answers, _prompted_long, _stronger, _one_voice, _few_in_a_group,
)  # fmt: skip


def _oriented(interval: Interval) -> tuple[float, float]:
    """Gain and its pessimistic bound, both such that more is better."""
    if interval.higher_is_better:
        return interval.gain, interval.low
    return -interval.gain, -interval.high
