"""How far a judge agrees with people, what leads it astray, and how its numbers are put right."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from pydantic import JsonValue

from noria.errors import Invalid
from noria.evaluation.judges.bench import Judged
from noria.evaluation.judges.judge import Judge
from noria.evaluation.judges.rows import JudgeRow, Label
from noria.stats import clustered
from noria.stats import prediction_powered as powered
from noria.stats.agreement import cohen_kappa, krippendorff_alpha
from noria.stats.clustered import Bounded
from noria.types import Digest, Record

LEAST = 20
"""Labelled rows with a score that a calibration takes at the least."""
SAME = 0.95
"""A judge that gives one score to more than this share of the rows says nothing."""
SURE = 0.99
"""Confidence at which a bias is called a fault: several are looked for at once."""
FLIPS = 0.1
"""Share of pairs that a judge may decide by their order."""


class Point(Record):
    """A labelled row as later corrections need it. `human` is the mean of the labellers; `judged` None for a void."""

    id: str
    human: float
    judged: float | None
    conversation: str
    weight: float = 1.0


class Calibration(Record):
    """What labels show of one judge: measures with their bounds, faults found, and the points that correct it."""

    judge: str
    digest: Digest
    method: str
    labels: int
    labellers: int
    rows: int
    void: int
    measures: dict[str, dict[str, float] | None]
    faults: dict[str, str]
    """Name of a fault to what was seen: constant, chance, lenient, strict, length, position, own."""
    points: tuple[Point, ...]

    def told(self) -> dict[str, JsonValue]:
        """As JSON, without the points."""
        told: dict[str, JsonValue] = self.model_dump(mode="json", exclude={"points"})
        return told


@dataclass(frozen=True, slots=True)
class _Row:
    """One row with what the judge and each labeller said."""

    judged: Judged
    score: float
    labels: Mapping[str, float]
    weight: float

    @property
    def human(self) -> float:
        return _mean(self.labels.values())

    @property
    def longer(self) -> float:
        """Characters that the first answer is longer than the second; for a single answer the log of its length."""
        row = self.judged.row
        if row.other is not None:
            return float(len(row.answer) - len(row.other))
        return math.log1p(len(row.answer))


def rows_of(labels: Sequence[Label]) -> list[JudgeRow]:
    """The labelled rows, each once, in the order of the labels."""
    return list({label.id: label.row() for label in labels}.values())


def calibrate(
    judge: Judge,
    labels: Sequence[Label],
    judged: Sequence[Judged],
    again: Sequence[Judged] = (),
    confidence: float = 0.95,
) -> Calibration:
    """Hold what a judge said of labelled rows against what people said.

    Args:
        judge: whose rulings they are.
        labels: what people said; several of one row where several labelled it.
        judged: what the judge said of `rows_of(labels)`.
        again: what it said when it was asked otherwise (rubric and examples in reverse order), of the same rows.
        confidence: of every interval.

    Raises:
        Invalid: for labels that are not on the scale, and fewer than `LEAST` labelled rows with a score.
    """
    _check(judge, labels)
    said: dict[str, dict[str, float]] = {}
    weights = {}
    for label in labels:
        said.setdefault(label.id, {})[label.labeller] = label.score
        weights[label.id] = label.weight
    rows = [
        _Row(each, each.score, said[each.row.id], weights[each.row.id])
        for each in judged
        if each.score is not None and each.row.id in said
    ]
    if len(rows) < LEAST:
        raise Invalid(
            f"{len(rows)} labelled rows have a score of judge '{judge.name}'; a calibration needs {LEAST}",
            f"label more rows; {sum(each.void is not None for each in judged)} judgements were void",
        )
    measures = _measures(judge, rows, judged, again, confidence)
    faults = _faults(judge, rows, measures["kappa"], _biases(judge, rows, judged, SURE))
    return Calibration(
        judge=judge.name, digest=judge.digest, method=judge.settings.method, labels=len(labels),
        labellers=len({label.labeller for label in labels}), rows=len(rows), void=len(judged) - len(rows),
        measures={name: _told(each) for name, each in measures.items()}, faults=faults,
        points=tuple(
            Point(
                id=row.id, human=_mean(said[row.id].values()), judged=each.score, conversation=row.conversation,
                weight=weights[row.id],
            )
            for each in judged
            if (row := each.row).id in said
        ),
    )  # fmt: skip


def _measures(
    judge: Judge, rows: Sequence[_Row], judged: Sequence[Judged], again: Sequence[Judged], confidence: float
) -> dict[str, Bounded | None]:
    clusters = [row.judged.row.conversation for row in rows]
    scores = [_nearest(judge, row.score) for row in rows]
    found: dict[str, Bounded | None] = {
        "kappa": _kappa(rows, scores, clusters, confidence),
        "kappa_people": _kappa_people(rows, clusters, confidence),
        "alpha": _alpha(rows, scores, clusters, confidence),
        "alpha_people": _alpha(rows, None, clusters, confidence),
        **_biases(judge, rows, judged, confidence),
    }
    if again:
        other = {each.row.id: each.score for each in again}
        both = [(row, there) for row in rows if (there := other.get(row.judged.row.id)) is not None]
        same = [_nearest(judge, row.score) == _nearest(judge, there) for row, there in both]
        found["steady"] = _share(same, [row.judged.row.conversation for row, _ in both], confidence)
    return found


def _biases(
    judge: Judge, rows: Sequence[_Row], judged: Sequence[Judged], confidence: float
) -> dict[str, Bounded | None]:
    """What leads the judge astray."""
    clusters = [row.judged.row.conversation for row in rows]
    found = {
        "bias": clustered.mean([row.score - row.human for row in rows], clusters, confidence),
        "length": _length(judge, rows, clusters, confidence),
        "own": _own(judge, rows, clusters, confidence),
    }
    if judge.settings.method == "pairwise":
        pairs = [each for each in judged if each.void is None]
        where = [each.row.conversation for each in pairs]
        found["position"] = _share([each.flip is not None for each in pairs], where, confidence)
        sides = [float(each.flip == "first") - float(each.flip == "second") for each in pairs]
        found["first"] = clustered.mean(sides, where, confidence)
    return found


def _kappa(rows: Sequence[_Row], scores: Sequence[float], clusters: Sequence[str], confidence: float) -> Bounded | None:
    """Of the judge with one person: every labeller of a row is held against the judge."""

    def statistic(chosen: Sequence[int]) -> float:
        pairs = [(scores[number], label) for number in chosen for label in rows[number].labels.values()]
        return _cohen(pairs)

    return clustered.coefficient(statistic, clusters, confidence)


def _kappa_people(rows: Sequence[_Row], clusters: Sequence[str], confidence: float) -> Bounded | None:
    """Of one person with another; None where no row has two labellers."""

    def statistic(chosen: Sequence[int]) -> float:
        pairs = [pair for number in chosen for pair in itertools.permutations(rows[number].labels.values(), 2)]
        return _cohen(pairs)

    return clustered.coefficient(statistic, clusters, confidence)


def _cohen(pairs: Sequence[tuple[float, float]]) -> float:
    if not pairs:
        return math.nan
    return cohen_kappa([one for one, _ in pairs], [other for _, other in pairs], "quadratic")


def _alpha(
    rows: Sequence[_Row], scores: Sequence[float] | None, clusters: Sequence[str], confidence: float
) -> Bounded | None:
    """Krippendorff's alpha of the people, or of the people and the judge as one more of them."""
    names = sorted({name for row in rows for name in row.labels})

    def statistic(chosen: Sequence[int]) -> float:
        ratings = [[rows[number].labels.get(name) for number in chosen] for name in names]
        if scores is not None:
            ratings.append([scores[number] for number in chosen])
        return krippendorff_alpha(ratings, "ordinal")

    return clustered.coefficient(statistic, clusters, confidence)


def _length(judge: Judge, rows: Sequence[_Row], clusters: Sequence[str], confidence: float) -> Bounded | None:
    """What length does to the judge's score of answers that people find equally good.

    For scores by one standard deviation of the logarithm of the length; for pairs how much more often the longer
    answer is preferred.
    """
    if judge.settings.method == "pairwise":
        return _effect([(row.longer > 0) / 2 - (row.longer < 0) / 2 for row in rows], rows, clusters, confidence)
    lengths = [row.longer for row in rows]
    centre = sum(lengths) / len(lengths)
    spread = math.sqrt(sum((each - centre) ** 2 for each in lengths) / len(lengths)) or 1.0
    return _effect([(each - centre) / spread for each in lengths], rows, clusters, confidence)


def _own(judge: Judge, rows: Sequence[_Row], clusters: Sequence[str], confidence: float) -> Bounded | None:
    """What it does to the judge's score of equally good answers that its own model wrote one of them."""
    mine = str(judge.model)
    if judge.settings.method == "pairwise":
        sides = [((row.judged.row.by == mine) - (row.judged.row.other_by == mine)) / 2 for row in rows]
        return _effect(sides, rows, clusters, confidence)
    known = [number for number, row in enumerate(rows) if row.judged.row.by]
    own = [float(rows[number].judged.row.by == mine) for number in known]
    return _effect(own, [rows[number] for number in known], [clusters[number] for number in known], confidence)


def _effect(of: Sequence[float], rows: Sequence[_Row], clusters: Sequence[str], confidence: float) -> Bounded | None:
    scores, human = [row.score for row in rows], [row.human for row in rows]
    return clustered.slope(of, scores, human, clusters, confidence)


def _share(hits: Sequence[bool], clusters: Sequence[str], confidence: float) -> Bounded | None:
    """A share with its interval over conversations; None for fewer than two."""
    if len(set(clusters)) < 2:
        return None
    numbers = [float(each) for each in hits]
    found = powered.mean(powered.Labelled(numbers, numbers, clusters), powered.Judged([], []), (0, 1), 1.0, confidence)
    return Bounded(found.value, found.low, found.high, confidence)


def _faults(
    judge: Judge, rows: Sequence[_Row], kappa: Bounded | None, measures: Mapping[str, Bounded | None]
) -> dict[str, str]:
    """What the labels show to be wrong with the judge, in words; a fair judge is seldom accused of any of them."""
    found = {}
    scores = [_nearest(judge, row.score) for row in rows]
    most = max(set(scores), key=scores.count)
    if scores.count(most) > SAME * len(scores) and len({row.human for row in rows}) > 1:
        found["constant"] = f"it gives {most:g} to {scores.count(most)} of {len(scores)} rows, whatever they are"
    if kappa is None or kappa.low <= 0:
        seen = f"kappa {kappa.value:.2f}, {kappa.low:.2f} to {kappa.high:.2f}" if kappa else "kappa is not defined"
        found["chance"] = f"that it agrees with people beyond chance is not shown ({seen})"
    if (bias := measures["bias"]) and judge.settings.method != "pairwise":
        if bias.low > 0:
            found["lenient"] = f"it gives {bias.value:.2f} more than people do ({bias.low:.2f} to {bias.high:.2f})"
        if bias.high < 0:
            found["strict"] = f"it gives {-bias.value:.2f} less than people do ({-bias.high:.2f} to {-bias.low:.2f})"
    if (length := measures["length"]) and length.low * length.high > 0:
        way = "longer" if length.value > 0 else "shorter"
        bounds = f"{length.low:+.2f} to {length.high:+.2f}"
        found["length"] = f"it favours {way} ones of answers that are equally good ({length.value:+.2f}, {bounds})"
    if (own := measures["own"]) and own.low > 0:
        found["own"] = f"it favours answers of its own model ({own.value:+.2f}, {own.low:+.2f} to {own.high:+.2f})"
    if (position := measures.get("position")) and position.low > FLIPS:
        first = measures.get("first")
        side = "" if first is None or first.low * first.high <= 0 else (" first" if first.value > 0 else " second")
        where = f", mostly for what stands{side}" if side else ""
        found["position"] = f"the order of the answers decides {100 * position.value:.0f} % of the pairs{where}"
    return found


def _mean(numbers: Collection[float]) -> float:
    return sum(numbers) / len(numbers)


def _check(judge: Judge, labels: Sequence[Label]) -> None:
    low, high = judge.bounds
    for label in labels:
        if label.score not in judge.values:
            allowed = "1, 0.5 or 0" if judge.settings.method == "pairwise" else f"a whole number, {low:g} to {high:g}"
            raise Invalid(f"the label {label.score:g} is not on the scale of judge '{judge.name}'", f"give {allowed}")


def _nearest(judge: Judge, score: float) -> float:
    """The score of the scale that is nearest to a weighted one."""
    return min(judge.values, key=lambda value: abs(value - score))


def _told(bounded: Bounded | None) -> dict[str, float] | None:
    return None if bounded is None else {name: round(value, 6) for name, value in asdict(bounded).items()}
