"""What a judge said of many rows, as numbers: put right by labels, or marked as uncalibrated; and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import JsonValue

from noria.evaluation.judges.bench import Judged
from noria.evaluation.judges.calibration import Calibration
from noria.evaluation.judges.judge import Judge
from noria.stats import prediction_powered as powered
from noria.stats.preference import length_control

UNCALIBRATED = "uncalibrated"


def summary(judge: Judge, judged: Sequence[Judged], calibration: Calibration | None) -> dict[str, JsonValue]:
    """All numbers of a run.

    What the judge alone says is never told without `calibration`: what people would say of these rows as far as the
    labels show it, or the word `uncalibrated`.
    """
    scored = [each for each in judged if each.score is not None]
    scores = [each.score for each in scored if each.score is not None]
    told: dict[str, JsonValue] = {
        "judge": judge.name, "digest": judge.digest, "method": judge.settings.method, "model": str(judge.model),
        "rows": len(judged), "scored": len(scored),
        "void": dict(Counter(_kind(each.void) for each in judged if each.void)),
        "mean": round(sum(scores) / len(scores), 4) if scores else None,
        "good": round(sum(score >= judge.settings.passes for score in scores) / len(scores), 4) if scores else None,
        "scores": {f"{value:g}": count for value, count in sorted(Counter(round(each, 1) for each in scores).items())},
        "calibration": corrected(judge, judged, calibration) if calibration else UNCALIBRATED,
        "cost": cost(judged),
    }  # fmt: skip
    masses = [each.mass for each in judged if each.mass is not None]
    if masses:
        told["mass"] = round(sum(masses) / len(masses), 4)
    if judge.settings.method == "pairwise":
        told["pairs"] = pairs(scored)
    return told


def corrected(judge: Judge, judged: Sequence[Judged], calibration: Calibration) -> dict[str, JsonValue]:
    """What people would say of rows like these: the mean score and the share of good ones, with intervals.

    The labels are taken to come from rows like these, evenly or with the weights they have. Rows that the judge could
    not score belong to them: what stands in for its score there, the middle of the scale, may be anything.
    """
    points = calibration.points
    middle, passes = sum(judge.bounds) / 2, judge.settings.passes
    human = [point.human for point in points]
    machine = [middle if point.judged is None else point.judged for point in points]
    where, weights = [point.conversation for point in points], [point.weight for point in points]
    scores = [middle if each.score is None else each.score for each in judged]
    clusters = [each.row.conversation for each in judged]
    told: dict[str, JsonValue] = {"labels": calibration.labels, "faults": {**calibration.faults}}
    if len(set(where)) < 2:
        return told
    step = 0.5 if judge.settings.method == "pairwise" else 1.0
    labelled = powered.Labelled(human, machine, where, weights)
    told["mean"] = _estimate(powered.mean(labelled, powered.Judged(scores, clusters), judge.bounds, step))
    good, called = [float(each >= passes) for each in human], [float(each >= passes) for each in machine]
    labelled = powered.Labelled(good, called, where, weights)
    seen = [float(score >= passes) for score in scores]
    told["good"] = _estimate(powered.mean(labelled, powered.Judged(seen, clusters), (0.0, 1.0)))
    if len(set(weights)) == 1 and len(set(where)) == len(where) and len(set(clusters)) == len(clusters):
        # Rogan and Gladen take all rows to be independent: those that are labelled do not count a second time.
        mine = {point.id for point in points}
        fresh = [each for each, row in zip(seen, judged, strict=True) if row.row.id not in mine]
        positives = int(sum(good))
        hits = sum(a == b == 1.0 for a, b in zip(good, called, strict=True))
        rejections = sum(a == b == 0.0 for a, b in zip(good, called, strict=True))
        found = powered.rogan_gladen(int(sum(fresh)), len(fresh), hits, positives, rejections, len(good) - positives)
        told["good_rogan_gladen"] = _estimate(found) if found else None
    return told


def pairs(scored: Sequence[Judged]) -> dict[str, JsonValue]:
    """Wins, ties and losses of the first answers, what their order decides, and their win rate at equal length."""
    scores = [each.score for each in scored if each.score is not None]
    flips = Counter(each.flip for each in scored if each.flip)
    lengths = [float(len(each.row.answer) - len(each.row.other or "")) for each in scored]
    controlled = length_control(scores, lengths)
    return {
        "wins": scores.count(1.0), "ties": scores.count(0.5), "losses": scores.count(0.0),
        "win_rate": round(sum(scores) / len(scores), 4) if scores else None,
        "flips": {
            "share": round(flips.total() / len(scores), 4) if scores else None,
            **{str(name): count for name, count in flips.items()},
        },
        "length_control": {name: round(each, 4) for name, each in asdict(controlled).items()} if controlled else None,
    }  # fmt: skip


def cost(judged: Sequence[Judged]) -> dict[str, JsonValue]:
    """What the judgements took beside what the answers did; sums over rows, of answers as far as it is known.

    `asked` is what was spent in this run: what was known before was not asked again.
    """
    answers = [each.row for each in judged]
    times = [each.seconds for each in answers if each.seconds is not None]
    tokens = [each.tokens for each in answers if each.tokens is not None]
    money = [each.cost for each in answers if each.cost is not None]
    calls, known = sum(each.calls for each in judged), sum(each.known for each in judged)
    return {
        "judge": {
            "calls": calls, "known": known, "prompt_tokens": sum(each.prompt_tokens for each in judged),
            "completion_tokens": sum(each.completion_tokens for each in judged),
            "seconds": round(sum(each.seconds for each in judged), 3),
            "cost": round(sum(each.cost for each in judged), 6),
            "seconds_per_row": round(sum(each.seconds for each in judged) / len(judged), 3) if judged else None,
        },
        "answers": {
            "tokens": sum(tokens) if tokens else None, "seconds": round(sum(times), 3) if times else None,
            "cost": round(sum(money), 6) if money else None,
            "seconds_per_row": round(sum(times) / len(times), 3) if times else None,
        },
    }  # fmt: skip


def _kind(void: str | None) -> str:
    """Void judgements are counted by what their reason begins with."""
    return (void or "").partition(":")[0]


def _estimate(found: powered.Corrected) -> dict[str, JsonValue]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(found).items()}
