"""Tables of judges: what is wrong is told at once, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from noria.errors import Invalid, NotFound
from noria.evaluation.judges.judge import judge_of
from noria.settings import JudgeSettings, load
from noria.settings.judge import PRESETS
from noria.types import Ref

HEAD = """[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "smollm2-135m-instruct"
[judges.quality]
"""
MODEL = Ref(kind="base", name="model", digest="0" * 16)


def loaded(folder: Path, table: str) -> None:
    (folder / "noria.toml").write_text(HEAD + table)
    load(folder / "noria.toml")


@pytest.mark.parametrize(
    ("table", "fact", "line"),
    [
        ('engine = "locl"\ncriteria = "clarity"', "wants engine 'locl'", 7),
        ('engine = "local"\ncriteria = "clarty"', "did you mean 'clarity'", 8),
        ('engine = "local"\ncriteria = ["clarity", "be kind"]', "no criteria called 'be kind'", 8),
        ('engine = "local"\ncriteria = ""', "say what to judge by", 8),
        ('engine = "local"\ncriteria = "clarity"\nscale = [5, 1]', "from a smaller to a greater", 9),
        ('engine = "local"\ncriteria = "clarity"\nscale = [0, 3]', "needs a rubric", 6),
        ('engine = "local"\ncriteria = "clarity"\nrubric = { 1 = "bad", 5 = "good" }', "one text for each score", 6),
        ('engine = "local"\ncriteria = "clarity"\nmethod = "guess"', "method", 9),
        ('engine = "local"\ncriteria = "clarity"\ngood_from = 7', "not on the scale", 6),
        ('engine = "local"\ncriteria = "clarity"\nmethod = "pairwise"\nscale = [0, 9]', "neither scale nor rubric", 6),
        ('engine = "local"\ncriteria = "clarity"\nlimit = 3', "unknown key 'judges.quality.limit'", 9),
        (
            'engine = "local"\ncriteria = "clarity"\n[[judges.quality.examples]]\ninput = "a"\noutput = "b"\n'
            'score = 9\njustification = "c"',
            "score 9, which is not on the scale",
            6,
        ),
        (
            'engine = "local"\ncriteria = "faithfulness"\n[[judges.quality.examples]]\ninput = "a"\noutput = "b"\n'
            'score = 5\njustification = "c"',
            "has no context",
            6,
        ),
        (
            'engine = "local"\ncriteria = "clarity"\nmethod = "g-eval"\nscale = [9, 10]\n'
            'rubric = { 9 = "bad", 10 = "good" }',
            "one digit",
            6,
        ),
    ],
)
def test_a_wrong_table_is_told_with_its_line(tmp_path: Path, table: str, fact: str, line: int) -> None:
    with pytest.raises(Invalid) as caught:
        loaded(tmp_path, table)
    assert fact in f"{caught.value.fact} {caught.value.hint}"
    assert caught.value.where == f"noria.toml:{line}"


def test_an_unknown_judge_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text(HEAD + 'engine = "local"\ncriteria = "clarity"')
    with pytest.raises(NotFound) as caught:
        load(tmp_path / "noria.toml").judge("qualty")
    assert caught.value.hint == "did you mean 'quality'?"


@pytest.mark.parametrize("criteria", PRESETS)
def test_every_preset_has_a_text_a_rubric_and_an_example_for_each_score(criteria: str) -> None:
    settings = JudgeSettings(engine="local", criteria=criteria)
    judge = judge_of("quality", settings, MODEL)
    assert len(judge.criteria.split()) > 5
    assert set(judge.rubric) == {1, 2, 3, 4, 5}
    assert {each.score for each in judge.examples} == {1, 2, 3, 4, 5}
    assert settings.wants == PRESETS[criteria]
    assert all(getattr(each, need) for each in judge.examples for need in settings.wants)
    pairs = judge_of("better", JudgeSettings(engine="local", criteria=criteria, method="pairwise"), MODEL)
    assert {each.score for each in pairs.examples} == {0, 0.5, 1}


def test_the_homework_has_its_own_texts() -> None:
    judge = judge_of("q", JudgeSettings(engine="local", criteria=("relevance", "accuracy", "clarity")), MODEL)
    assert judge.rubric == {
        5: "Excellent - Directly addresses with accurate, well-structured info",
        4: "Good - Addresses well with minor issues",
        3: "Acceptable - Partially addresses, missing key info",
        2: "Poor - Tangentially related, doesn't properly answer",
        1: "Unacceptable - Irrelevant or incorrect",
    }
    first = judge.examples[0]
    assert (first.input, first.output) == ("What is the capital of France?", "The capital of France is Paris...")
    assert (first.score, first.justification) == (5, "Directly addresses with correct answer and context")


def test_contextual_relevancy_needs_no_ground_truth_and_recall_does() -> None:
    assert PRESETS["contextual_relevancy"] == ("context",)
    assert PRESETS["contextual_recall"] == ("context", "target")


def test_the_digest_changes_with_what_is_asked_and_with_nothing_else() -> None:
    plain = JudgeSettings(engine="local", criteria="clarity")
    digest = judge_of("q", plain, MODEL).digest
    assert judge_of("other", plain.model_copy(update={"engine": "gpu", "cache": False}), MODEL).digest == digest
    for change in ({"max_reason": 10}, {"criteria": "accuracy"}, {"rubric": dict.fromkeys(range(1, 6), "x")}):
        assert judge_of("q", plain.model_copy(update=change), MODEL).digest != digest
    assert judge_of("q", plain, MODEL.model_copy(update={"digest": "1" * 16})).digest != digest
