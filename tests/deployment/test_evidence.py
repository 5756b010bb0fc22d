"""The evidence of a trial: what counts, in which order, and that it never changes afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial_fakes import NEW, OLD, START, TRIAL, answered, candidate, said

from noria.deployment.evidence import Evidence
from noria.settings import ReleaseSettings, TaskSettings
from noria.types import Feedback, Interaction

Record = Interaction | Feedback
LATER = START + timedelta(days=1)


def task(**more: object) -> TaskSettings:
    release = ReleaseSettings(canary=0.1, max_p95_ms=1000)
    return TaskSettings(sources=("faq",), base="tiny", engine="local", release=release).model_copy(update=more)


class Log:
    """Records that come in bit by bit."""

    def __init__(self, *records: Record) -> None:
        self.fresh = list(records)

    def __call__(self) -> Iterator[Record]:
        fresh, self.fresh = self.fresh, []
        yield from fresh


def evidence(records: Iterable[Record], **more: object) -> Evidence:
    found = Evidence(Log(*records), TRIAL, task(**more))
    found.read(LATER)
    return found


def test_the_kth_score_of_one_slice_meets_the_kth_of_the_other() -> None:
    new, old = [answered(each, True) for each in range(4)], [answered(each, False) for each in range(10, 12)]
    notes = [said(new[0], 1, 60), said(new[1], 0, 50), said(new[2], 1, 70), said(old[0], 0, 90), said(old[1], 1, 80)]
    found = evidence([*new, *old, *notes])
    assert found.seen.pairs["feedback"] == [(0.0, 1.0), (1.0, 0.0)]
    assert found.seen.requests == (4, 2)
    assert len(found.seen.pairs["error"]) == 2


@given(st.integers(), st.integers(1, 60))
def test_what_was_paired_stays_and_reading_again_gives_the_same(seed: int, count: int) -> None:
    """Records come in bit by bit and a little out of order; another reader finds all of them at once."""
    choose = random.Random(seed)
    answers = [
        answered(number, choose.random() < 0.5, light=choose.choice(["green", "red"])) for number in range(count)
    ]
    notes = [
        said(each, float(choose.random() < 0.5), choose.uniform(0, 30)) for each in answers if choose.random() < 0.7
    ]
    records: list[Record] = sorted([*answers, *notes], key=_due)
    log = Log()
    followed = Evidence(log, TRIAL, task())
    before: dict[str, list[tuple[float, float]]] = {}
    while records:
        now = _due(records[0]) + timedelta(seconds=choose.uniform(0, 9))
        log.fresh = [each for each in records if _due(each) <= now]
        records = records[len(log.fresh) :]
        choose.shuffle(log.fresh)
        followed.read(now)
        after = {name: list(pairs) for name, pairs in followed.seen.pairs.items()}
        assert all(after[name][: len(pairs)] == pairs for name, pairs in before.items())
        before = after
    followed.read(LATER)
    assert followed.seen == evidence([*answers, *notes]).seen


def _due(record: Record) -> datetime:
    return record.at if isinstance(record, Feedback) else record.at + timedelta(seconds=record.seconds)


def test_late_feedback_belongs_to_its_answer_and_the_first_word_counts() -> None:
    new, old = answered(1, True), answered(2, False)
    log = Log(new, old, said(old, 0))
    found = Evidence(log, TRIAL, task())
    assert found.read(LATER)
    assert "feedback" not in found.seen.pairs
    log.fresh = [said(new, 1, 40_000), said(new, 0, 50_000), said(old, 1, 60_000)]
    assert found.read(LATER)
    assert found.seen.pairs["feedback"] == [(1.0, 0.0)]
    assert not found.read(LATER)


def test_of_one_user_the_first_score_counts_and_of_conversations_where_these_stick() -> None:
    mine = [answered(number, True, user="ann") for number in range(5)]
    others = [answered(number, False) for number in range(5)]
    records: list[Record] = [*mine, *others, *(said(each, 1) for each in (*mine, *others))]
    found = evidence(records)
    assert len(found.seen.pairs["feedback"]) == 1
    assert found.seen.requests == (5, 5)
    assert len(evidence(records, sticky="conversation").seen.pairs["feedback"]) == 5


@pytest.mark.parametrize(
    ("value", "metric", "correction", "score"),
    [
        (1.0, "thumbs", None, 1.0),
        (-1.0, "thumbs", None, 0.0),
        (0.0, "correct", None, 0.0),
        (None, "correction", "Two days.", 0.0),
        (None, "correction", f" {NEW.upper()}", 1.0),
        (1.0, "thumbs", "Two days.", 0.0),
        (1.0, "politeness", None, None),
    ],
)
def test_what_feedback_is_worth(value: float | None, metric: str, correction: str | None, score: float | None) -> None:
    new, old = answered(1, True), answered(2, False)
    found = evidence([new, old, said(old, 1), said(new, value, metric=metric, correction=correction)])
    assert found.seen.pairs.get("feedback") == (None if score is None else [(score, 1.0)])


def test_judges_and_lights_count_by_themselves() -> None:
    new, old = answered(1, True, light="green"), answered(2, False, light="yellow")
    again = answered(3, True, light="uncalibrated"), answered(4, False, light="red")
    notes = [said(new, 0.8, metric="judge:tone"), said(old, 0.4, metric="judge:tone"), said(old, 4, metric="judge:big")]
    found = evidence([new, old, *again, *notes])
    assert found.seen.pairs["light"] == [(1.0, 0.5)]
    assert found.seen.pairs["judge:tone"] == [(0.8, 0.4)]
    assert "judge:big" not in found.seen.pairs


def test_failures_and_times_count_but_not_what_says_nothing() -> None:
    new = [answered(0, True, seconds=0.25), answered(1, True, status=502, seconds=9), answered(2, True, seconds=3)]
    old = [answered(number, False, seconds=0.5) for number in range(3)]
    nothing: list[dict[str, object]] = [
        {"status": 499}, {"status": 400}, {"served_by": "candidate:helpdesk@cccccccccccccccc"}, {"arm": "champion"},
    ]  # fmt: skip
    found = evidence([*new, *old, *(answered(50, True).model_copy(update=each) for each in nothing)]).seen
    assert (found.requests, found.errors) == ((3, 3), (1, 0))
    assert found.p95_ms == (3000.0, 500.0)
    assert found.pairs["latency"] == [(0.75, 0.5), (0.0, 0.5)]
    assert sorted(found.pairs["error"]) == [(0.0, 1.0), (1.0, 1.0), (1.0, 1.0)]


def test_numbers_are_told_by_slice() -> None:
    told = evidence([answered(1, True), answered(2, False), answered(3, False, answer=OLD)]).told()
    assert told["slices"] == {
        "challenger": {
            "served_by": str(candidate("b").ref), "requests": 1, "errors": 0, "p95_ms": 100.0, "users": 1,
        },
        "control": {"served_by": str(candidate("a").ref), "requests": 2, "errors": 0, "p95_ms": 100.0, "users": 2},
    }  # fmt: skip
