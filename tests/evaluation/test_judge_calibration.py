"""A rigged judge is found out, whatever it is rigged to do; a fair one is not accused."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from judge_fakes import MODEL, Opinion, Scripted, Silence, bench, judge, preferred, scored

from noria.errors import Invalid
from noria.evaluation.judges.bench import Judged
from noria.evaluation.judges.calibration import Calibration, calibrate, rows_of
from noria.evaluation.judges.judge import Judge
from noria.evaluation.judges.rows import JudgeRow, Label
from noria.evaluation.judges.summary import UNCALIBRATED, summary
from noria.types import Generation


def labels(rows: int = 80, seed: int = 1, people: int = 1, own: float = 0.0) -> list[Label]:
    """Answers whose grade stands in their first letter, of any length; people are off by one now and then."""
    drawn = random.Random(seed)
    found = []
    for number in range(rows):
        grade = drawn.randint(1, 5)
        answer = f"{grade} " + "word " * drawn.randint(1, 60)
        by = str(MODEL) if drawn.random() < own else "candidate:other@0123456789abcdef"
        for person in range(people):
            said = min(5, max(1, grade + drawn.choice([0, 0, 0, 0, 1, -1])))
            found.append(Label(question=f"{number}?", answer=answer, by=by, score=said, labeller=str(person)))
    return found


def pairs(rows: int = 80, seed: int = 2) -> list[Label]:
    """Pairs of which the one with the greater number is better."""
    drawn = random.Random(seed)
    found = []
    for number in range(rows):
        one, other = drawn.sample(range(1, 10), 2)
        answer, second = (f"{each} " + "word " * drawn.randint(1, 60) for each in (one, other))
        score = float(one > other) if drawn.random() < 0.9 else 0.5
        found.append(Label(question=f"{number}?", answer=answer, other=second, score=score))
    return found


def found_out(of: Judge, opinion: Opinion, said: Sequence[Label]) -> Calibration:
    judged = bench(of, Scripted(opinion)).rule(rows_of(said), Silence())
    return calibrate(of, said, judged)


def grade(shown: dict[str, str]) -> int:
    """A fair opinion, off by one now and then."""
    noise = random.Random(shown["question"])
    return min(5, max(1, int(shown["answer"][0]) + noise.choice([0, 0, 0, 1, -1])))


def guess(shown: dict[str, str]) -> int:
    return random.Random(f"guess {shown['question']}").randint(1, 5)


def test_a_fair_judge_is_not_accused() -> None:
    found = found_out(judge(), scored(grade), labels(people=2, own=0.5))
    assert found.faults == {}
    kappa, people = found.measures["kappa"], found.measures["kappa_people"]
    assert kappa is not None
    assert people is not None
    assert kappa["low"] > 0.6
    assert people["low"] > 0.6
    assert found.measures["alpha"] is not None
    assert (found.labellers, found.rows, found.labels) == (2, 80, 160)


def test_a_fair_judge_of_pairs_is_not_accused() -> None:
    found = found_out(judge("pairwise"), preferred(lambda shown: "A" if shown["A"] > shown["B"] else "B"), pairs())
    assert found.faults == {}
    position = found.measures["position"]
    assert position is not None
    assert position["value"] == position["low"] == 0.0
    assert position["high"] < 0.06


def test_always_five_is_found_out() -> None:
    found = found_out(judge(), scored(lambda _: 5), labels())
    assert {"constant", "chance", "lenient"} <= set(found.faults)
    assert "gives 5 to 80 of 80" in found.faults["constant"]
    assert "length" not in found.faults


def test_prefers_long_is_found_out() -> None:
    found = found_out(judge(), scored(lambda shown: 1 + min(4, len(shown["answer"]) // 65)), labels())
    assert {"chance", "length"} <= set(found.faults)
    assert "longer" in found.faults["length"]


def test_prefers_long_is_found_out_though_it_sees_quality_too() -> None:
    def opinion(shown: dict[str, str]) -> int:
        return min(5, max(1, int(shown["answer"][0]) + (len(shown["answer"]) > 160) - (len(shown["answer"]) < 90)))

    found = found_out(judge(), scored(opinion), labels())
    assert set(found.faults) == {"length"}


def test_prefers_long_of_pairs_is_found_out() -> None:
    longer = preferred(lambda shown: "A" if len(shown["A"]) > len(shown["B"]) else "B")
    found = found_out(judge("pairwise"), longer, pairs())
    assert {"length", "chance"} <= set(found.faults)
    assert "position" not in found.faults


def test_prefers_first_is_found_out() -> None:
    found = found_out(judge("pairwise"), preferred(lambda _: "A"), pairs())
    assert {"constant", "position", "chance"} <= set(found.faults)
    assert "first" in found.faults["position"]
    second = found_out(judge("pairwise"), preferred(lambda _: "B"), pairs())
    assert "second" in second.faults["position"]


def test_a_judge_that_favours_its_own_model_is_found_out() -> None:
    said = labels(own=0.5)
    mine = {label.answer for label in said if label.by == str(MODEL)}

    def opinion(shown: dict[str, str]) -> int:
        return min(5, int(shown["answer"][0]) + (shown["answer"] in mine))

    found = found_out(judge(), scored(opinion), said)
    assert "own" in found.faults
    assert "length" not in found.faults


def test_noise_is_found_out() -> None:
    found = found_out(judge(), scored(guess), labels())
    assert "chance" in found.faults


def test_a_judge_that_answers_otherwise_when_asked_otherwise_is_not_steady() -> None:
    of, said = judge(), labels()
    once = bench(of, Scripted(scored(grade))).rule(rows_of(said), Silence())
    again = bench(of, Scripted(scored(guess))).rule(rows_of(said), Silence())
    found = calibrate(of, said, once, again).measures["steady"]
    assert found is not None
    assert found["high"] < 0.5
    same = calibrate(of, said, once, once).measures["steady"]
    assert same is not None
    assert same["value"] == 1.0


def test_labels_must_be_on_the_scale_and_enough() -> None:
    of, said = judge(), labels()
    judged = bench(of, Scripted(scored(lambda _: 3))).rule(rows_of(said), Silence())
    with pytest.raises(Invalid, match="label 9 is not on the scale"):
        calibrate(of, [said[0].model_copy(update={"score": 9.0}), *said[1:]], judged)
    with pytest.raises(Invalid, match="19 labelled rows have a score"):
        calibrate(of, said[:19], judged)


def more(rows: int, seed: int) -> list[JudgeRow]:
    return [label.row().model_copy(update={"id": f"{seed}-{label.id}"}) for label in labels(rows, seed)]


def test_a_number_is_put_right_by_labels_or_called_uncalibrated() -> None:
    """The judge gives one more than it should; people would say 3 of rows like these."""
    of, said = judge(), labels(150)
    lenient = Scripted(scored(lambda shown: min(5, int(shown["answer"][0]) + 1)))
    known = calibrate(of, said, bench(of, lenient).rule(rows_of(said), Silence()))
    judged: list[Judged] = bench(of, lenient).rule(more(600, 9), Silence())
    alone = summary(of, judged, None)
    assert alone["calibration"] == UNCALIBRATED
    told = summary(of, judged, known)["calibration"]
    assert isinstance(told, dict)
    mean, good = told["mean"], told["good"]
    assert isinstance(mean, dict)
    assert isinstance(good, dict)
    assert isinstance(alone["mean"], float)
    assert float(str(mean["high"])) < alone["mean"]
    assert float(str(mean["low"])) < 3.0 < float(str(mean["high"]))
    assert float(str(good["low"])) < 0.4 < float(str(good["high"]))
    assert isinstance(told["good_rogan_gladen"], dict)
    assert isinstance(told["faults"], dict)
    assert "lenient" in told["faults"]


class Hesitant(Scripted):
    """Cuts what it says of bad answers."""

    def answer(self, *arguments: Any, **more: Any) -> Generation:
        said = super().answer(*arguments, **more)
        return said if json.loads(said.text)["score"] > 2 else replace(said, finish_reason="length")


def test_rows_that_a_judge_cannot_score_still_count() -> None:
    """It is silent on bad answers; who left them out would find the others far too good."""
    of, said = judge(), labels(200)
    hesitant = Hesitant(scored(grade))
    known = calibrate(of, said, bench(of, hesitant).rule(rows_of(said), Silence()))
    assert known.void > 40
    told = summary(of, bench(of, hesitant).rule(more(600, 9), Silence()), known)["calibration"]
    assert isinstance(told, dict)
    assert isinstance(told["mean"], dict)
    assert float(str(told["mean"]["low"])) < 3.0 < float(str(told["mean"]["high"]))
