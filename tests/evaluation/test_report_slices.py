"""Groups of rows: a planted loss is found, none is found in noise, tags come from questions alone."""

from __future__ import annotations

import pytest
from made_reports import candidate, made

from noria.evaluation import metrics, slices, topics
from noria.evaluation.metrics import Answered
from noria.evaluation.report import intervals, scored
from noria.types import Example, Message, Report, digest_of

PARCEL = (
    "Where is my parcel number {}?",
    "When does the carrier bring parcel {}?",
    "Is parcel {} late with the carrier?",
)
REFUND = ("I want a refund for invoice {}.", "Was the refund of invoice {} paid?", "The invoice {} has a wrong refund.")


def example(number: int, question: str, target: str = "It is on its way to you.") -> Example:
    return Example(
        id=digest_of([number, question]), origin="source:chats", slice="task", conversation=f"c{number}",
        messages=(Message(role="user", content=question),), context=None, target=target, split="test",
    )  # fmt: skip


def regressions(report: Report) -> list[slices.Group]:
    return [each for each in slices.groups(report) if each.worse]


@pytest.mark.parametrize("value", ["ru", "21 to 60 words", "repair, wheel, broken"])
def test_a_planted_loss_is_found_and_told_with_its_interval(value: str) -> None:
    report = made(400, gain=0.05, lost={value: -0.3})
    found = regressions(report)
    assert found[0].value == value
    assert found[0].interval.high < 0
    assert found[0].p < 0.01
    assert found == regressions(report)


@pytest.mark.slow
def test_in_noise_a_group_is_named_as_rarely_as_promised() -> None:
    named = sum(bool(regressions(made(240, seed=seed, per_conversation=2))) for seed in range(200))
    # 5 of 100 at the most, two-sided so half of it; three standard errors are left for chance.
    assert named / 200 <= slices.RISK / 2 + 0.033


def test_a_group_of_few_rows_or_conversations_is_not_looked_at() -> None:
    assert {each.name for each in slices.groups(made(40))} == {"slice = task"}
    assert slices.groups(made(300, per_conversation=60)) == []


def test_less_may_be_better() -> None:
    report = made(300, gain=0.2)
    turned = {
        group: {name: each.model_copy(update={"higher_is_better": False}) for name, each in metrics.items()}
        for group, metrics in report.intervals.items()
    }
    worse = regressions(report.model_copy(update={"intervals": turned}))
    assert worse
    assert all(each.interval.gain > 0 for each in worse)
    assert regressions(report) == []


@pytest.mark.slow
def test_rows_are_tagged_by_language_length_topic_and_source() -> None:
    questions = [text.format(number) for number in range(20) for text in (*PARCEL, *REFUND)]
    rows = [example(number, question) for number, question in enumerate(questions)]
    rows.append(example(999, "Wo ist mein Paket, und wann kommt der Fahrer damit endlich zu mir?", "Es kommt morgen."))
    answers = [Answered("An answer.", target=row.target) for row in rows]
    tagged = slices.tagged(scored(rows, answers, answers, [metrics.find("token_f1")]), rows)
    assert {row.tags["source"] for row in tagged} == {"chats"}
    assert tagged[0].tags["language"] == "en"
    assert tagged[-1].tags["language"] == "de"
    assert (tagged[0].tags["length"], tagged[-1].tags["length"]) == ("up to 8 words", "9 to 20 words")
    about = {row.tags["topic"] for row in tagged if "refund" in row.question}
    assert len(about & {row.tags["topic"] for row in tagged if "arcel" in row.question}) == 0
    assert any("refund" in name for name in about)


@pytest.mark.slow
def test_topics_are_the_same_each_time_and_not_sought_in_little() -> None:
    texts = [text.format(number) for number in range(20) for text in (*PARCEL, *REFUND)]
    assert topics.of(texts) == topics.of(texts)
    assert topics.of(texts[:20]) == []
    assert topics.of(["?"] * 100) == []


def test_a_report_without_rows_has_no_groups() -> None:
    empty = Report(candidate=candidate("a"), champion=candidate(None), intervals={}, rows=(), checks={})
    assert slices.groups(empty) == []
    assert slices.tagged([], []) == []
    assert intervals([], [], [], [metrics.find("token_f1")], 0.95) == {}
