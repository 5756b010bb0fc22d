"""Calibration of the lights: what people said of answers becomes thresholds on their score."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from pydantic import JsonValue

from noria.errors import Conflict, Invalid
from noria.evaluation import shelf
from noria.evaluation.labels import given, worth
from noria.evaluation.truth import same
from noria.ports import Platform
from noria.settings import ComparisonSettings, LabelSettings, LightSettings
from noria.stats import conformal, trust
from noria.stats.lots import drawn
from noria.types import Feedback, Interaction

SAID = ("thumbs", "correct")
"""Metrics of feedback that say whether an answer is right: 1 and more is right, 0 and less is wrong."""
REFERENCE = 100
"""Scores without a label that are enough to lay thresholds out; with fewer, some labelled ones are given up for it."""
GIVEN_UP = 0.2


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled answer."""

    id: str
    score: float
    wrong: bool


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What the labels on one candidate's answers show. Of labels, those that calibrate are counted.

    `needed` is how many right answers it takes at the least; with fewer labels the candidate stays uncalibrated.
    """

    served_by: str
    labels: int
    wrong: int
    needed: int
    green: conformal.Certified | None
    red: conformal.Certified | None

    @property
    def known(self) -> bool:
        """Whether there are labels enough to say anything."""
        return self.labels >= self.needed

    def told(self) -> dict[str, JsonValue]:
        """As JSON."""
        return {
            "served_by": self.served_by, "labels": self.labels, "wrong": self.wrong, "needed": self.needed,
            "green": asdict(self.green) if self.green else None, "red": asdict(self.red) if self.red else None,
        }  # fmt: skip


def calibrate(platform: Platform, name: str) -> list[Calibrated]:
    """Calibrate a task's lights on all its labelled traffic and put the thresholds into use; most labels come first.

    What is promised is in `noria.stats.conformal`: for each candidate by itself, with a risk of [tasks.X.lights] risk,
    about answers like those that people labelled. Raises Invalid for a task without lights, Conflict where there are
    too few labels for any candidate: then nothing changes.
    """
    task = platform.settings.task(name)[1]
    lights = task.lights
    if lights is None:
        raise Invalid(
            f"task '{name}' has no lights", f"add [tasks.{name}.lights]", where=platform.settings.place("tasks", name)
        )
    mark = platform.traffic.mark()
    interactions, feedback = platform.traffic.read(mark)
    labels = labelled(interactions, feedback, task.labels or LabelSettings())
    groups: dict[str, tuple[list[Row], list[float]]] = {}
    for each in interactions:
        score = _score(each) if each.task == name else None
        if score is None:
            continue
        rows, others = groups.setdefault(each.served_by, ([], []))
        if each.id in labels:
            rows.append(Row(each.id, score, labels[each.id]))
        else:
            others.append(score)
    found = [calibrated(served_by, rows, others, lights) for served_by, (rows, others) in groups.items()]
    found.sort(key=lambda each: (-each.labels, each.served_by))
    if not any(each.known for each in found):
        most = max((each.labels for each in found), default=0)
        least = conformal.needed(lights.wrong, lights.risk)
        raise Conflict(
            f"the lights of '{name}' have {most} labelled answers of one candidate to go by; they need {least}",
            "say of more answers whether they are right: POST /v1/feedback with the metric 'correct' and 1 or 0",
        )
    _store(platform, name, lights, found)
    return found


def calibrated(served_by: str, rows: Sequence[Row], others: Sequence[float], lights: LightSettings) -> Calibrated:
    """The thresholds for one candidate. `others` are scores of its answers that nobody labelled."""
    reference = list(others)
    if len(reference) < REFERENCE:
        # Thresholds must be laid out without the rows that decide on them.
        reference += [row.score for row in rows if _given_up(row.id)]
        rows = [row for row in rows if not _given_up(row.id)]
    grid = conformal.grid_of(reference)
    scores, wrong = [row.score for row in rows], [row.wrong for row in rows]
    green = conformal.below(scores, wrong, grid, lights.wrong, lights.risk)
    most = green.threshold if green is not None else float("inf")
    red = conformal.above(scores, wrong, grid, lights.red, lights.risk, most)
    return Calibrated(served_by, len(rows), sum(wrong), conformal.needed(lights.wrong, lights.risk), green, red)


def labelled(
    interactions: Iterable[Interaction], feedback: Iterable[Feedback], rules: LabelSettings | None = None
) -> dict[str, bool]:
    """Whether an answer is wrong, for each of which somebody has said so. Feedback is in order of time.

    Labellers count before all else, the mean of what they said; then a correction, then the latest word. A correction
    that says what the answer says confirms it, by the task's rule of comparison.
    """
    rules = rules or LabelSettings()
    feedback = list(feedback)
    labels = given(feedback)
    corrected: dict[str, str] = {}
    judged: dict[str, bool] = {}
    for note in feedback:
        if note.correction and note.correction.strip():
            corrected[note.interaction] = note.correction
        elif note.metric in SAID and note.value is not None and not 0 < note.value < 1:
            judged[note.interaction] = note.value <= 0
    found: dict[str, bool] = {}
    for each in interactions:
        worths = [worth(label, each.answer, rules) for label in labels.get(each.id, ())]
        values = [value for value in worths if value is not None]
        if values:
            found[each.id] = sum(values) / len(values) < rules.least_right
        elif each.id in corrected:
            found[each.id] = not same(each.answer, corrected[each.id], _without_judge(rules.comparison))
        elif each.id in judged:
            found[each.id] = judged[each.id]
    return found


def _without_judge(rule: ComparisonSettings) -> ComparisonSettings:
    return rule.model_copy(update={"kind": "tolerant"}) if rule.kind == "judge" else rule


def _score(each: Interaction) -> float | None:
    """The score that the gateway gave, where it gave a light."""
    if each.light is None or each.status != 200 or not each.answer:
        # Without its text no correction can be told from a confirmation; leaving out corrections alone would flatter.
        return None
    if each.logprob is None and each.support is None:
        return None
    return trust.score(each.logprob, each.support, each.findings)


def _given_up(identity: str) -> bool:
    return drawn("reference", identity) < GIVEN_UP


def _store(platform: Platform, name: str, lights: LightSettings, found: Sequence[Calibrated]) -> None:
    thresholds: dict[str, JsonValue] = {
        each.served_by: {
            "green": each.green.threshold if each.green else None, "red": each.red.threshold if each.red else None,
        }
        for each in found
        if each.known
    }  # fmt: skip
    told: list[JsonValue] = [each.told() for each in found]
    key = trust.key(name, lights)
    files = {"lights.json": json.dumps({"thresholds": thresholds, "candidates": told}, indent=1)}
    shelf.keep(platform, "lights", name, key, files, {"thresholds": thresholds}, task=name)
