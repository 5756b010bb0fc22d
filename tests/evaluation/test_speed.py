"""Rows of a benchmark: what counts, what makes them void, and how two runs are compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.engines import Reply
from noria.evaluation import speed
from noria.evaluation.scenarios import Ask
from noria.evaluation.speed import Check, Round
from noria.messages import Message

ASK = Ask((Message(role="user", content="Tell me."),))
FINE = Reply(2.0, first=0.5, tokens=16, prompt_tokens=7, finish="stop", text="It was a day like any other in the town.")
SPAM = replace(FINE, text="spam " * 40, seconds=0.01, first=0.001)


def rounds(*replies: Reply, seconds: float = 4.0, ask: Ask = ASK) -> list[Round]:
    return [Round((ask,) * len(replies), replies, seconds, cpu=2.0, others=0.1, joules=8.0)]


def test_figures_of_a_round() -> None:
    row = speed.row(rounds(FINE, FINE), Check(64))
    assert row["total_s"] == 4.0
    assert row["mean_s"] == 2.0
    assert row["ttft_ms"] == 500.0
    assert row["itl_ms"] == 100.0
    assert row["tokens_per_s"] == 8.0
    assert row["tokens_per_cpu_s"] == 16.0
    assert row["requests_per_s"] == 0.5
    assert row["joules_per_token"] == 0.25
    assert (row["invalid"], row["void"], row["tokens"]) == (0, False, 32)


@pytest.mark.parametrize(
    ("reply", "check", "fault"),
    [
        (replace(FINE, error="HTTP 500"), Check(64), "error"),
        (replace(FINE, finish=None), Check(64), "finish"),
        (replace(FINE, tokens=None), Check(64), "uncounted"),
        (replace(FINE, tokens=65), Check(64), "length"),
        (FINE, Check(64, exactly=True), "length"),
        (replace(FINE, text=" \n"), Check(64), "empty"),
        (SPAM, Check(64), "repeated"),
        (FINE, Check(64), ""),
        (FINE, Check(16, exactly=True), ""),
    ],
)
def test_what_is_no_answer(reply: Reply, check: Check, fault: str) -> None:
    assert speed.invalid(ASK, reply, check) == fault


def test_what_comes_behind_the_natural_end_is_not_held_against_an_answer_that_must_go_on() -> None:
    long = replace(FINE, text=f"{FINE.text} {'spam ' * 40}", tokens=64, finish="length")
    assert speed.invalid(ASK, long, Check(64, True, {ASK: 10})) == ""
    assert speed.invalid(ASK, long, Check(64, True, {})) == "repeated"


def test_garbage_is_never_fast() -> None:
    quick = speed.row(rounds(*[SPAM] * 10, seconds=0.1), Check(64))
    slow = speed.row(rounds(*[FINE] * 10), Check(64))
    assert quick["void"]
    assert all(quick[name] is None for name in speed.SPEEDS)
    assert quick["faults"] == {"repeated": 10}
    rows: list[dict[str, Any]] = [{**each, "scenario": "lab", "concurrency": 1} for each in (quick, slow)]
    assert speed.fastest(rows) == {1}


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_row_is_void_above_a_tenth(good: int, bad: int) -> None:
    if good + bad == 0:
        return
    row = speed.row(rounds(*[FINE] * good, *[SPAM] * bad), Check(64))
    assert row["invalid"] == bad
    assert row["void"] == (10 * bad > good + bad)


def test_tokens_of_invalid_answers_do_not_count_and_their_time_does() -> None:
    row = speed.row(rounds(*[FINE] * 19, SPAM), Check(64))
    assert row["tokens_per_s"] == 19 * 16 / 4.0


def test_medians_over_rounds_with_their_spread() -> None:
    three = [*rounds(FINE, seconds=1.0), *rounds(FINE, seconds=2.0), *rounds(FINE, seconds=8.0)]
    row = speed.row(three, Check(64))
    assert (row["total_s"], row["tokens_per_s"]) == (2.0, 8.0)
    assert (row["tokens_per_s_low"], row["tokens_per_s_high"]) == (2.0, 16.0)


def test_needles_are_counted_by_place() -> None:
    ask = Ask(ASK.messages, "41017", "250 words, at 0%")
    row = speed.row(rounds(replace(FINE, text="It is 41017."), FINE, ask=ask), Check(64))
    assert (row["right"], row["expected"]) == (1, 2)
    assert row["places"] == {"250 words, at 0%": [1, 2]}


def test_vectors_count_by_the_tokens_of_their_texts() -> None:
    ask = Ask(texts=("a", "b"))
    good = Reply(1.0, prompt_tokens=10, vectors=2, finish="stop")
    assert speed.row(rounds(good, ask=ask), Check(0))["tokens_per_s"] == 2.5
    assert speed.invalid(ask, replace(good, vectors=1), Check(0)) == "vectors"


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_a_value_that_its_share_does_not_exceed(values: list[float], share: float) -> None:
    found = speed.percentile(values, share)
    assert found is not None
    rounded = [round(value, 4) for value in values]
    assert found in rounded
    assert sum(value <= found for value in rounded) >= share * len(values) - 1e-9


@pytest.mark.parametrize(
    ("one", "other", "share"), [("a b c d", "a b x d", 0.5), ("a", "a", 1.0), ("", "", 1.0), ("a b", "a b c d", 0.5)]
)
def test_likeness_ends_at_the_first_difference(one: str, other: str, share: float) -> None:
    assert speed.alike(one, other) == share


def test_two_runs_are_compared_by_row_and_overlap_is_said() -> None:
    row = {
        "engine": "a", "precision": "q8_0", "scenario": "lab", "concurrency": 1, "tokens_per_s": 10.0, "ttft_ms": 100.0,
        "peak_gib": None, "tokens_per_s_low": 9.0, "tokens_per_s_high": 11.0,
    }  # fmt: skip
    faster = {**row, "tokens_per_s": 20.0, "tokens_per_s_low": 19.0, "tokens_per_s_high": 21.0}
    (found,) = speed.compare([row], [faster, {**row, "engine": "b"}])
    assert (found["tokens_per_s"], found["ttft_ms"], found["peak_gib"], found["within_spread"]) == (
        2.0,
        1.0,
        None,
        False,
    )
    (same,) = speed.compare([row], [{**row, "tokens_per_s": None}])
    assert (same["tokens_per_s"], same["within_spread"]) == (None, None)
