"""Labels: what people say of the answers that they were asked for, how far they agree, and what it says of all."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from pydantic import JsonValue

from noria import prompts
from noria.errors import Conflict, Invalid, NotFound
from noria.evaluation.queue import Batch, Wanted, alone, batches, eligible, rules_of
from noria.evaluation.truth import Judge, same
from noria.ports import Platform, Recorder
from noria.settings import LabelSettings
from noria.stats.agreement import cohen_kappa, krippendorff_alpha
from noria.stats.lots import drawn
from noria.stats.sampling import Estimate, hajek, horvitz_thompson
from noria.types import LABEL, REMOVED, Feedback, Interaction, new_id

LABELLER = "labeller:"
"""What stands before a labeller's name; no user of the gateway is called so, since those names are hashes."""
LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class Label:
    """What one labeller said of one answer; with neither value nor correction the labeller passed."""

    labeller: str
    value: float | None
    correction: str | None

    @property
    def passed(self) -> bool:
        """Whether the labeller could not tell."""
        return self.value is None and self.correction is None


@dataclass(frozen=True, slots=True)
class Row:
    """An answer in the queue, what it answers, and what was said of it."""

    wanted: Wanted
    batch: int
    answer: Interaction
    labels: tuple[Label, ...]

    def by(self, labeller: str) -> Label | None:
        """What this labeller said of it."""
        return next((each for each in self.labels if each.labeller == labeller), None)

    @property
    def given(self) -> int:
        """How many labels it has."""
        return sum(not each.passed for each in self.labels)

    def told(self, hidden: bool = False) -> dict[str, JsonValue]:
        """As JSON; `hidden` leaves out what others said, which a labeller must not see beforehand."""
        each = self.answer
        labels: list[JsonValue] = [asdict(label) for label in self.labels]
        return {
            "row": each.id, "at": each.at.isoformat(), "messages": list(each.messages), "question": question(each),
            "context": each.context, "answer": each.answer, "light": each.light, "served_by": each.served_by,
            "reason": self.wanted.reason, "probability": self.wanted.probability, "given": self.given,
            **({} if hidden else {"labels": labels}),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Share:
    """What labels say of one group of answers.

    `right` is the share of right ones and `value` the mean label; `wrong` is how many of all covered are not right.
    """

    group: str
    right: Estimate
    value: Estimate
    wrong: float

    def told(self) -> dict[str, JsonValue]:
        """As JSON."""
        return {"group": self.group, "right": asdict(self.right), "value": asdict(self.value), "wrong": self.wrong}


def rows(platform: Platform, name: str) -> list[Row]:
    """The queue of a task, oldest batch first; answers that are no longer in the log are not in it."""
    return _rows(platform, name, batches(platform, name))


def upcoming(platform: Platform, name: str, labeller: str) -> Row | None:
    """The answer that this labeller is to label next, or None.

    Answers that others have begun with come first, where several labels are wanted; otherwise the order is random,
    and another one for each labeller: what is labelled is at any time a fair sample of what was asked for.
    """
    wants = rules_of(platform, name).labellers
    _checked(labeller)
    left = [row for row in rows(platform, name) if row.by(labeller) is None and row.given < wants]
    return min(left, key=lambda row: (-row.given, drawn(f"next {labeller}", row.wanted.id)), default=None)


def show(platform: Platform, name: str, identity: str) -> Row:
    """One answer of the queue; raises NotFound."""
    for row in rows(platform, name):
        if row.wanted.id == identity:
            return row
    raise NotFound(f"'{identity}' is not in the queue of '{name}'", f"list what is: noria labels list {name}")


def say(
    platform: Platform,
    recorder: Recorder,
    name: str,
    identity: str,
    labeller: str,
    value: str | float | None = None,
    correction: str | None = None,
    *,
    passing: bool = False,
) -> Row:
    """Label an answer of the queue: a value of the scale (or its name), the right answer, or both, or `passing`.

    Returns the row with the label. Raises Invalid for what is not on the scale, NotFound for an answer that nobody
    asked for, Conflict where this labeller has labelled it already: then nothing is stored.
    """
    number = value_of(platform, name, value)
    text = None if correction is None else correction.strip()
    _checked(labeller)
    if text == "":
        raise Invalid("the correction is empty", "write the right answer, or leave the correction out")
    if passing != (number is None and text is None):
        raise Invalid("say either what the label is or that it cannot be told", "a value, a correction, or pass")
    with alone(platform, name):
        row = show(platform, name, identity)
        if row.by(labeller) is not None:
            raise Conflict(
                f"'{labeller}' has labelled '{identity}' already", f"take it back first: noria labels remove {identity}"
            )
        _log(platform, recorder, identity, LABEL, labeller, number, text)
    return replace(row, labels=(*row.labels, Label(labeller, number, text)))


def remove(platform: Platform, recorder: Recorder, name: str, identity: str, labeller: str) -> None:
    """Take a label back; raises NotFound where this labeller has given none."""
    with alone(platform, name):
        if show(platform, name, identity).by(labeller) is None:
            raise NotFound(f"'{labeller}' has not labelled '{identity}'", f"look: noria labels show {identity}")
        _log(platform, recorder, identity, REMOVED, labeller, None, None)


def worth(label: Label, answer: str, rules: LabelSettings, judge: Judge | None = None) -> float | None:
    """What a label says of an answer, on the task's scale; None where the labeller passed.

    Without a value the answer is held against the correction, by the task's rule: it has the highest value of the
    scale or the lowest, or None where the rule wants a judge and there is none here.
    """
    if label.value is not None or label.correction is None:
        return label.value
    if rules.comparison.kind == "judge" and judge is None:
        return None
    alike = same(answer, label.correction, rules.comparison, judge)
    return max(rules.scale.values()) if alike else min(rules.scale.values())


def agreement(platform: Platform, name: str, judge: Judge | None = None) -> dict[str, JsonValue]:
    """How far labellers agree: Krippendorff's alpha over all, Cohen's kappa (quadratic weights) of each pair.

    Both are 1 for full agreement and 0 for what chance would give, None where nothing was labelled twice or all
    labels are equal.
    """
    rules = rules_of(platform, name)
    found = [_worths(row, rules, judge) for row in rows(platform, name)]
    shared = [each for each in found if len(each) > 1]
    names = sorted({labeller for each in shared for labeller in each})
    alpha = krippendorff_alpha([[each.get(labeller) for each in shared] for labeller in names], rules.level)
    pairs: list[JsonValue] = []
    for one, other in itertools.combinations(names, 2):
        both = [(each[one], each[other]) for each in shared if one in each and other in each]
        if both:
            first, second = zip(*both, strict=True)
            kappa = cohen_kappa(first, second, None if rules.level == "nominal" else "quadratic")
            equal = sum(x == y for x, y in both) / len(both)
            pairs.append({"labellers": [one, other], "rows": len(both), "equal": equal, "kappa": _number(kappa)})
    return {"task": name, "level": rules.level, "rows": len(shared), "alpha": _number(alpha), "pairs": pairs}


def estimate(platform: Platform, name: str, judge: Judge | None = None) -> dict[str, JsonValue]:
    """What the labels say of all answers that were considered, and of those of each candidate and each light.

    Of an asked-for answer the chance is the one with which it was drawn, times the labelled share of its batch: the
    queue is handed out at random, so that what is labelled stands for what is not yet ("response homogeneity
    groups"; Särndal, Swensson and Wretman, "Model Assisted Survey Sampling", 1992, section 15.6). Batches without any
    label are left out, and so is what could not be drawn: labels stand for `covered` of `considered` answers.
    """
    rules = rules_of(platform, name)
    chosen = batches(platform, name)
    found = [(row, _worths(row, rules, judge)) for row in _rows(platform, name, chosen)]
    labelled = [(row, sum(each.values()) / len(each)) for row, each in found if each]
    counts = Counter(row.batch for row, _ in labelled)
    sizes = {batch.number: len(batch.rows) for batch in chosen}
    parts = {batch: counts[batch] / size for batch, size in sizes.items() if size}
    return {
        "task": name, "considered": sum(batch.considered for batch in chosen),
        "covered": sum(batch.reachable for batch in chosen if counts[batch.number]),
        "wanted": sum(sizes.values()), "labelled": len(labelled),
        "passed": sum(bool(row.labels) and not each for row, each in found),
        "groups": [_share(group, members, parts, rules).told() for group, members in _groups(labelled).items()],
    }  # fmt: skip


def question(answer: Interaction) -> str:
    """What was asked last, as text."""
    for message in reversed(answer.messages):
        if message.get("role") == "user":
            try:
                return prompts.text_of(message.get("content"))
            except Invalid:
                return "(not text)"
    return ""


def given(feedback: Iterable[Feedback]) -> dict[str, list[Label]]:
    """What labellers said, by answer, in order of time; of one labeller the latest word counts."""
    found: dict[str, dict[str, Label]] = {}
    for note in feedback:
        if note.metric == LABEL and note.user.startswith(LABELLER):
            labeller = note.user.removeprefix(LABELLER)
            found.setdefault(note.interaction, {})[labeller] = Label(labeller, note.value, note.correction)
    return {identity: list(labels.values()) for identity, labels in found.items()}


def _rows(platform: Platform, name: str, chosen: Sequence[Batch]) -> list[Row]:
    rules_of(platform, name)
    interactions, feedback = platform.traffic.read(platform.traffic.mark())
    answers = {each.id: each for each in eligible(interactions, name, platform.settings.task(name)[1])}
    labels = given(feedback)
    return [
        Row(wanted, batch.number, answers[wanted.id], tuple(labels.get(wanted.id, ())))
        for batch in chosen
        for wanted in batch.rows
        if wanted.id in answers
    ]


def _worths(row: Row, rules: LabelSettings, judge: Judge | None) -> dict[str, float]:
    worths = ((label.labeller, worth(label, row.answer.answer, rules, judge)) for label in row.labels)
    return {labeller: value for labeller, value in worths if value is not None}


def _share(group: str, members: Sequence[tuple[Row, float]], parts: Mapping[int, float], rules: LabelSettings) -> Share:
    chances = [row.wanted.probability * parts[row.batch] for row, _ in members]
    values = [value for _, value in members]
    right = [float(value >= rules.least_right) for value in values]
    conversations = [row.answer.conversation for row, _ in members]
    scale = rules.scale.values()
    return Share(
        group, _within(hajek(right, chances, conversations), 0.0, 1.0),
        _within(hajek(values, chances, conversations), min(scale), max(scale)),
        horvitz_thompson([1 - each for each in right], chances),
    )  # fmt: skip


def _within(found: Estimate, low: float, high: float) -> Estimate:
    return replace(found, low=max(low, found.low), high=min(high, found.high))


def _groups(labelled: Sequence[tuple[Row, float]]) -> dict[str, list[tuple[Row, float]]]:
    """All rows, those of each candidate, and those of each light."""
    kinds: list[Callable[[Row], str | None]] = [
        lambda row: "all", lambda row: row.answer.served_by,
        lambda row: row.answer.light and f"light:{row.answer.light}",
    ]  # fmt: skip
    found: dict[str, list[tuple[Row, float]]] = {}
    for kind in kinds:
        for row, value in labelled:
            group = kind(row)
            if group:
                found.setdefault(group, []).append((row, value))
    return found


def value_of(platform: Platform, name: str, text: str | float | None) -> float | None:
    """A value of the task's scale by its name or number; raises Invalid for what is not on it."""
    if text is None:
        return None
    scale = rules_of(platform, name).scale
    if isinstance(text, str) and text in scale:
        return scale[text]
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number not in scale.values():
        words = ", ".join(f"{word} ({value:g})" for word, value in scale.items())
        raise Invalid(f"'{text}' is not on the scale of '{name}'", f"one of: {words}")
    return number


def _checked(labeller: str) -> None:
    if not labeller.strip() or len(labeller) > LONGEST_NAME or not labeller.isprintable():
        raise Invalid(f"'{labeller}' is no name for a labeller", f"1 to {LONGEST_NAME} characters: --as NAME")


def _log(
    platform: Platform, recorder: Recorder, identity: str, metric: str, labeller: str, value: float | None,
    correction: str | None,
) -> None:  # fmt: skip
    at = platform.clock.now()
    note = Feedback(
        id=new_id(at), at=at, interaction=identity, metric=metric, value=value, correction=correction,
        user=f"{LABELLER}{labeller}",
    )  # fmt: skip
    recorder.append(note.model_dump_json().encode())


def _number(value: float) -> float | None:
    return None if value != value else round(value, 6)
