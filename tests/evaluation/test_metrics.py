"""Metrics: equal to the libraries that define them, to values worked out by hand, and inside their ranges."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, hamming_loss
from textstat.textstat import textstatistics

from noria.errors import Invalid
from noria.evaluation import metrics
from noria.evaluation.metrics import Answered, Metric, catalogue
from noria.evaluation.metrics.surface import VARIANTS
from noria.evaluation.metrics.text import label, labels

FIXTURES = Path(__file__).parent / "fixtures"
PAIRS = [Answered(**row) for row in json.loads((FIXTURES / "pairs.json").read_text())]
CLASSES: list[dict[str, Any]] = json.loads((FIXTURES / "classes.json").read_text())
COLOURS = ("red", "green", "yellow")
LABELS = ("billing", "delivery", "returns")


def value(name: str, answers: list[Answered]) -> float:
    return metrics.find(name).value(answers)


def coloured() -> list[Answered]:
    return [Answered(row["answer"], row["target"], choices=COLOURS, confidence=row["confidence"]) for row in CLASSES]


@pytest.mark.parametrize(
    ("answer", "target", "f1", "rouge", "exact"),
    [
        ("The order ships on Monday.", "the order ships on monday", 1.0, 1.0, 1.0),
        ("ships Monday", "Monday ships", 1.0, 0.5, 0.0),
        ("It ships on Monday", "It ships on Tuesday", 0.75, 0.75, 0.0),
        ("", "something", 0.0, 0.0, 0.0),
        ("Заказ отправлен", "заказ отправлен", 1.0, 1.0, 1.0),
    ],
)
def test_known_values(answer: str, target: str, f1: float, rouge: float, exact: float) -> None:
    assert metrics.token_f1(answer, target) == pytest.approx(f1)
    assert metrics.rouge_l(answer, target) == pytest.approx(rouge)
    assert metrics.exact_match(answer, target) == exact


def test_bleu_is_that_of_sacrebleu() -> None:
    whole = BLEU().corpus_score([each.answer for each in PAIRS], [[each.target or "" for each in PAIRS]])
    assert value("bleu", PAIRS) == pytest.approx(whole.score, abs=1e-9)
    for one, each in zip(PAIRS, metrics.find("bleu").each(PAIRS), strict=True):
        assert each == pytest.approx(BLEU().corpus_score([one.answer], [[one.target or ""]]).score, abs=1e-9)


def test_chrf_is_that_of_sacrebleu() -> None:
    whole = CHRF().corpus_score([each.answer for each in PAIRS], [[each.target or "" for each in PAIRS]])
    assert value("chrf", PAIRS) == pytest.approx(whole.score, abs=1e-9)
    for one, each in zip(PAIRS, metrics.find("chrf").each(PAIRS), strict=True):
        assert each == pytest.approx(CHRF().corpus_score([one.answer], [[one.target or ""]]).score, abs=1e-9)


def test_rouge_counts_shared_words_and_pairs() -> None:
    pair = Answered("police kill the gunman", "police killed the gunman")
    # Articles aside: police kill gunman, police killed gunman.
    assert value("rouge_1", [pair]) == pytest.approx(2 / 3)
    assert value("rouge_2", [pair]) == 0.0
    assert value("rouge_l", [pair]) == pytest.approx(2 / 3)


def test_classification_is_that_of_scikit_learn() -> None:
    answers = coloured()
    wanted = [row["target"] for row in CLASSES]
    given_ = [label(row["answer"], COLOURS) or "none" for row in CLASSES]
    assert given_ == ["red", "green", "yellow", "green", "none", "none", "green", "yellow"]
    assert value("accuracy", answers) == pytest.approx(accuracy_score(wanted, given_))
    for average in ("micro", "macro"):
        theirs = f1_score(wanted, given_, labels=list(COLOURS), average=average)
        assert value(f"f1_{average}", answers) == pytest.approx(theirs)
    right = [float(one == other) for one, other in zip(wanted, given_, strict=True)]
    sure = [row["confidence"] for row in CLASSES]
    assert value("brier", answers) == pytest.approx(brier_score_loss(right, sure))


def test_several_labels_are_those_of_scikit_learn() -> None:
    answers = [Answered(row["ranked"], row["labels"], choices=LABELS) for row in CLASSES]
    rows = [
        [[float(name in labels(text)) for name in LABELS] for text in (row["labels"], row["ranked"])] for row in CLASSES
    ]
    assert value("hamming_loss", answers) == pytest.approx(
        hamming_loss([row[0] for row in rows], [row[1] for row in rows])
    )
    assert value("precision_at_1", answers) == pytest.approx(5 / 8)
    # 2 + 1 + 1 + 2 + 0 + 1 + 3 + 1 of the first three.
    assert value("precision_at_3", answers) == pytest.approx(11 / 24)


def test_labels_that_nobody_knows_count_as_wrong_but_never_more_than_all() -> None:
    assert value("hamming_loss", [Answered("a, b, c, d", "yes", choices=("yes", "no"))]) == 1.0


def test_calibration_by_hand() -> None:
    # Bins (0.5, 0.6] and (0.9, 1]: |0.55 + 0.6 - 1| and |0.95 + 1 - 1| of four answers.
    answers = [
        Answered("yes", "yes", confidence=0.55), Answered("no", "yes", confidence=0.6),
        Answered("yes", "yes", confidence=0.95), Answered("no", "yes", confidence=1.0),
    ]  # fmt: skip
    assert value("ece", answers) == pytest.approx((0.15 + 0.95) / 4)
    assert value("brier", answers) == pytest.approx((0.45**2 + 0.6**2 + 0.05**2 + 1.0) / 4)


def test_perplexity_by_hand() -> None:
    answers = [
        Answered("", "a", logprob=math.log(0.5), target_tokens=1),
        Answered("", "b c", logprob=2 * math.log(0.25), target_tokens=2),
    ]
    assert value("perplexity", answers) == pytest.approx((0.5 * 0.25**2) ** (-1 / 3))
    assert value("log_likelihood", answers) == pytest.approx((math.log(0.5) + 2 * math.log(0.25)) / 2)


@pytest.mark.parametrize("locale", VARIANTS)
@pytest.mark.slow
def test_reading_ease_is_that_of_textstat(locale: str) -> None:
    name = "flesch_reading_ease" + ("" if locale == "en_US" else f"_{locale}")
    library = textstatistics()
    library.set_lang(locale)
    metric = metrics.find(name)
    for one, each in zip(PAIRS, metric.each(PAIRS), strict=True):
        assert each == pytest.approx(library.flesch_reading_ease(one.answer))
    assert VARIANTS[locale].language in metric.definition
    assert value(name, [Answered("")]) == 0.0


@pytest.mark.slow
def test_reading_ease_of_a_known_sentence() -> None:
    # 6 words, 1 sentence, 6 syllables.
    assert value("flesch_reading_ease", [Answered("The cat sat on the mat.")]) == pytest.approx(206.835 - 6.09 - 84.6)


@pytest.mark.parametrize(
    ("name", "answers", "expected"),
    [
        ("characters", [Answered("Grüße"), Answered("")], 2.5),
        ("words", [Answered("one  two\nthree")], 3.0),
        ("bullet_points", [Answered("Do this:\n- one\n* two\n 3. three\nNot-this\n-nor this")], 3.0),
        ("latency", [Answered("", seconds=1.0), Answered("", seconds=2.0)], 1.5),
        ("latency_p50", [Answered("", seconds=each) for each in (5.0, 1.0, 2.0)], 2.0),
        ("latency_p95", [Answered("", seconds=float(each)) for each in range(101)], 95.0),
        ("tokens", [Answered("", completion_tokens=3), Answered("", completion_tokens=6)], 4.5),
        ("cost", [Answered("", cost=0.002)], 2.0),
        ("support", [Answered("delivery takes days", context="delivery takes days")], 1.0),
        ("support", [Answered("refunds forever", context="delivery takes days")], 0.0),
    ],
)  # fmt: skip
def test_statistics_of_answers(name: str, answers: list[Answered], expected: float) -> None:
    assert value(name, answers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I'm sorry, but I can't help with that.", 1.0),
        ("I cannot assist with this request.", 1.0),
        ("As an AI language model, I am unable to do this.", 1.0),
        ("Dabei kann ich leider nicht helfen.", 1.0),
        ("Я не могу вам помочь с этим.", 1.0),
        ("Lo siento, no puedo ayudar con eso.", 1.0),
        ("Désolé, je ne peux pas vous aider.", 1.0),
        ("I'm sorry that your parcel was late; it arrives on Monday.", 0.0),
        ("You cannot return used goods.", 0.0),
        ("I do not know.", 0.0),
        ("", 0.0),
    ],
)
def test_refusals(answer: str, refused: float) -> None:
    assert value("refusal_rate", [Answered(answer)]) == refused


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Confirmed.", "confirmed"),
        ("It is not confirmed at all", "not confirmed"),
        ("not confirmed, or confirmed", "not confirmed"),
        ("confirmed and open", None),
        ("no idea", None),
    ],
)
def test_the_class_that_a_text_names(text: str, named: str | None) -> None:
    assert label(text, ("confirmed", "not confirmed", "open")) == named


known = st.builds(
    Answered,
    answer=st.text(max_size=40),
    target=st.text(min_size=1, max_size=40),
    question=st.text(max_size=10),
    context=st.text(max_size=40),
    choices=st.sampled_from([(), COLOURS]),
    confidence=st.floats(0, 1),
    logprob=st.floats(-1e4, 0),
    target_tokens=st.integers(1, 50),
    seconds=st.floats(0, 1e3),
    prompt_tokens=st.integers(0, 1000),
    completion_tokens=st.integers(0, 1000),
    cost=st.floats(0, 10),
)


@settings(deadline=None)
@given(st.lists(known, min_size=1, max_size=5))
@pytest.mark.slow
def test_every_metric_stays_in_its_range(answers: list[Answered]) -> None:
    for name in metrics.names():
        metric = metrics.find(name)
        for each in (metric.value(answers), *metric.each(answers)):
            assert math.isfinite(each), name
            assert metric.low - 1e-9 <= each <= metric.high + 1e-9, name


def test_every_metric_says_what_it_is() -> None:
    for name in metrics.names():
        metric = metrics.find(name)
        assert metric.name == name
        assert len(metric.definition) > 30, name
        assert metric.source, name
        assert metric.unit, name
    assert {metrics.find(name).needs for name in metrics.names()} == {"target", "context", "none"}


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(Invalid) as caught:
        metrics.check(["token_f2"], "noria.toml:9")
    assert "token_f1" in caught.value.hint
    assert caught.value.where == "noria.toml:9"


@pytest.mark.parametrize("name", ["token_f1", "perplexity", "support", "latency_p95", "cost", "ece"])
def test_what_a_row_lacks_is_named(name: str) -> None:
    metric = metrics.find(name)
    bare = Answered("yes", question="Is it?")
    with pytest.raises(Invalid, match=f"metric '{name}' needs '.*row 1: 'Is it\\?'"):
        metric.value([bare])


def politeness(answer: str) -> float:
    """Share of answers that say please."""
    return float("please" in answer)


def odd(reply: str) -> float:
    return 1.0


def textual(answer: str) -> float:
    return answer  # type: ignore[return-value]


NOT_A_METRIC = 7


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Metric]:
    """Opens an entry point of the group as if a package had brought it."""

    def find(target: str) -> Metric:
        offered = EntryPoint("own", target, catalogue.GROUP)
        monkeypatch.setattr(catalogue, "entry_points", lambda group: EntryPoints([offered]))
        catalogue.find.cache_clear()
        return catalogue.find("own")

    return find


@pytest.fixture(autouse=True)
def forgotten() -> None:
    catalogue.find.cache_clear()


def test_a_plain_function_is_a_metric(door: Callable[[str], Metric]) -> None:
    metric = door(f"{__name__}:politeness")
    assert (metric.name, metric.needs, metric.definition) == ("own", "none", "Share of answers that say please.")
    assert metric.value([Answered("please"), Answered("no")]) == 0.5


@pytest.mark.parametrize(
    ("target", "fact"),
    [
        ("odd", "has a parameter 'reply'"),
        ("NOT_A_METRIC", "neither a function nor a Metric"),
        ("absent", "cannot be imported"),
    ],
)
def test_a_wrong_metric_is_one_clear_error(door: Callable[[str], Metric], target: str, fact: str) -> None:
    with pytest.raises(Invalid, match=fact) as caught:
        door(f"{__name__}:{target}")
    assert "entry point own" in caught.value.hint


def test_a_metric_that_gives_no_number_is_told_of(door: Callable[[str], Metric]) -> None:
    with pytest.raises(Invalid, match="gave 'hello'"):
        door(f"{__name__}:textual").value([Answered("hello")])


def test_sums_of_parts_are_sums_of_the_whole() -> None:
    """What makes a metric of many answers one that can be resampled."""
    for name in ("bleu", "chrf", "f1_micro", "f1_macro", "flesch_reading_ease", "hamming_loss"):
        metric = metrics.find(name)
        drawn = [0, 2, 2, 5, 5, 5, 7]
        sums = metric.sums(coloured() + PAIRS[:1])
        answers = coloured() + PAIRS[:1]
        picked = [answers[number] for number in drawn] + [replace(each) for each in answers]
        by_rows = metric.statistic.value(np.concatenate([sums[drawn], sums]))
        assert by_rows == pytest.approx(metric.value(picked))
