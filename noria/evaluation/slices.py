"""Groups of rows: what each row is tagged with, and the groups on which a candidate is worse."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import JsonValue

from noria.errors import Unavailable
from noria.evaluation import metrics, topics
from noria.names import Record
from noria.stats.multiple import holm, loss_p
from noria.stats.paired import of_scores
from noria.types import Example, Interval, Report, RowScore

RISK = 0.05
"""Chance that a report names a group at all where the candidate is worse on none."""
MIN_ROWS = 20
MIN_CONVERSATIONS = 10
"""A group of fewer is not looked at: one odd conversation would speak for it."""
BANDS = ((8, "up to 8 words"), (20, "9 to 20 words"), (60, "21 to 60 words"))
LONGEST = "over 60 words"
SURE = 0.5
"""Probability from which a detected language is believed; very short texts look like many."""


class Group(Record):
    """The paired comparison on the rows that have one value of one tag (`slice` is a tag too).

    `p` is the two-sided p-value that the candidate is as good here, 1 where it is better, adjusted for all groups that
    were looked at (Holm). The interval is widened as the test was: with k groups left to look at its confidence is
    1 - `RISK` / k.
    """

    tag: str
    value: str
    interval: Interval
    p: float

    @property
    def name(self) -> str:
        """Tag and value as people read them."""
        return f"{self.tag} = {self.value}"

    @property
    def worse(self) -> bool:
        """Whether the candidate is worse here, by `RISK` over all groups."""
        return self.p <= RISK

    def told(self) -> dict[str, JsonValue]:
        """As JSON."""
        interval = self.interval.model_dump(mode="json")
        return {"tag": self.tag, "value": self.value, "p": self.p, "worse": self.worse, "interval": interval}


def tagged(scores: Sequence[RowScore], rows: Sequence[Example]) -> list[RowScore]:
    """The scores with tags: `language`, `length` (of the question), `topic` and `source`; what is unknown is left out.

    Tags depend on questions, targets and origins alone, never on answers or scores, so that a group is fixed before
    it is looked at. Raises Unavailable where the language library is missing.
    """
    if not rows:
        return list(scores)
    identifier = _identifier()
    about = topics.of([row.messages[-1].content for row in rows])
    tagged = []
    for number, (score, row) in enumerate(zip(scores, rows, strict=True)):
        question = row.messages[-1].content
        found = {
            "language": _language(identifier, f"{question}\n{row.target}"),
            "length": _band(question),
            "topic": about[number] if about else None,
            "source": row.origin.removeprefix("source:"),
        }
        tags = {name: value for name, value in found.items() if value}
        tagged.append(score.model_copy(update={"tags": {**score.tags, **tags}}))
    return tagged


def groups(report: Report, metric: str | None = None) -> list[Group]:
    """Every group of enough rows, the surest loss first; `metric` is the report's first one unless named."""
    metric = metric or first_metric(report)
    if metric is None:
        return []
    members = list(_members(report.rows, metric))
    higher = _higher(report, metric)
    sign = 1.0 if higher else -1.0
    plain = [min(1.0, 2 * _loss_p(rows, metric, sign)) for _, _, rows in members]
    adjusted, left = holm(plain), sorted(range(len(plain)), key=lambda number: -plain[number])
    found = []
    for rank, number in enumerate(left, 1):
        tag, value, rows = members[number]
        interval = _interval(metric, rows, 1 - RISK / rank, higher)
        found.append(Group(tag=tag, value=value, interval=interval, p=round(adjusted[number], 6)))
    return sorted(found, key=lambda each: (each.p, sign * each.interval.gain, each.name))


def first_metric(report: Report) -> str | None:
    """The metric that the gate goes by: the first of the slice `all`, or of any other."""
    for found in (report.intervals.get("all", {}), *report.intervals.values()):
        for name in found:
            return name
    return None


def _higher(report: Report, metric: str) -> bool:
    found = (each[metric].higher_is_better for each in report.intervals.values() if metric in each)
    return next(found, True)


def _members(rows: Sequence[RowScore], metric: str) -> Iterator[tuple[str, str, list[RowScore]]]:
    scored = [row for row in rows if metric in row.before and metric in row.after]
    found: dict[tuple[str, str], list[RowScore]] = {}
    for row in scored:
        for tag, value in {"slice": row.slice, **row.tags}.items():
            found.setdefault((tag, value), []).append(row)
    seen: set[tuple[str, ...]] = set()
    for (tag, value), members in sorted(found.items()):
        same = tuple(row.id for row in members)
        # A group of all rows is no group, and the same rows under two names are one.
        if len(members) == len(scored) or same in seen:
            continue
        if len(members) >= MIN_ROWS and len({row.conversation for row in members}) >= MIN_CONVERSATIONS:
            seen.add(same)
            yield tag, value, members


def _loss_p(rows: Sequence[RowScore], metric: str, sign: float) -> float:
    gains = [sign * (row.after[metric] - row.before[metric]) for row in rows]
    return loss_p(gains, [row.conversation for row in rows])


def _interval(metric: str, rows: Sequence[RowScore], confidence: float, higher: bool) -> Interval:
    known = metrics.find(metric)
    return of_scores(
        metric,
        [row.before[metric] for row in rows],
        [row.after[metric] for row in rows],
        [row.conversation for row in rows],
        low=known.low,
        high=known.high,
        confidence=confidence,
        higher_is_better=higher,
    )


def _band(question: str) -> str:
    count = len(question.split())
    return next((name for most, name in BANDS if count <= most), LONGEST)


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[evaluate]'") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _language(identifier: Any, text: str) -> str | None:
    code, probability = identifier.classify(text)
    return str(code) if probability >= SURE else None
