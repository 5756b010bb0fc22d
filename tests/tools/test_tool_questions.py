"""The questions of the example are sound: what is right scores as right, and what is not does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noria.errors import Invalid
from noria.settings import load
from noria.tools.calling import Dialogue, Made
from noria.tools.questions import Question, Scored, Wanted, invented, rates, read_questions, score

EXAMPLE = Path(__file__).parents[2] / "examples" / "tools"
ASKED = Question(
    id="w",
    kind="weather",
    question="The weather in Oslo on 2026-01-21?",
    calls=(Wanted(name="forecast", arguments={"city": "Oslo"}, gives=("snow",)),),
    also=("today",),
    says=("snow|blizzard",),
    never=("sunny",),
)


def dialogue(answer: str | None, *made: tuple[str, str, Any, str]) -> Dialogue:
    return Dialogue([], answer, "answer" if answer else "faults", "", [Made(*each) for each in made])


ALL = {"tool", "arguments", "answer", "grounded", "success"}
GOOD = ("forecast", '{"city": " oslo"}', "ok", "Snow, -3 degrees")


@pytest.mark.parametrize(
    ("found", "right"),
    [
        (dialogue("It will snow at -3.", GOOD), ALL),
        (dialogue("It will snow.", ("today", "{}", "ok", "x"), GOOD), ALL),
        (dialogue("It will snow at -7.", GOOD), {"tool", "arguments", "answer"}),
        (dialogue("It is sunny, no snow.", GOOD), {"tool", "arguments", "grounded"}),
        (dialogue("It will snow."), {"answer", "grounded"}),
        (dialogue(None, GOOD), {"tool", "arguments", "grounded"}),
        (dialogue("snow", ("forecast", '{"city": "Rome"}', "ok", "snow")), {"tool", "answer", "grounded"}),
        (dialogue("snow", ("forecast", '{"city": "Oslo"}', "failed", "snow")), {"tool", "answer", "grounded"}),
        (dialogue("snow", GOOD, ("other", "{}", "ok", "x")), {"arguments", "answer", "grounded"}),
    ],
)  # fmt: skip
def test_each_aspect_is_judged_by_itself(found: Dialogue, right: set[str]) -> None:
    scored = score(ASKED, found)
    assert {name for name in ALL if getattr(scored, name)} == right


def test_what_is_absent_must_be_said_not_to_be_known() -> None:
    asked = Question(id="a", kind="absent", question="What is in ApisTox?")
    assert score(asked, dialogue("I do not know.")).success
    assert not score(asked, dialogue("It holds toxic APIs.")).success
    assert score(asked, dialogue("I don't know, maybe 1035.")).grounded is False


def test_invented_facts_are_found() -> None:
    known = ["store_and_fwd_flag", "total 1,035 on 2026-01-21", "OC(=O)C(=O)O"]
    assert invented("1035 rows of store_and_fwd_flag on January 21, 2026: OC(=O)C(=O)O.", known) == []
    assert invented("1036 rows of VendorID: CC(=O)O", known) == ["1036", "VendorID", "CC(=O)O"]


def test_rates_have_intervals_and_kinds() -> None:
    rows = [score(ASKED, dialogue("snow", GOOD)), score(ASKED, dialogue(None))]
    found = rates(rows)
    assert [*found] == ["all", "weather"]
    assert found["all"]["success"]["right"] == 1
    assert found["all"]["success"]["low"] < 0.5 < found["all"]["success"]["high"]  # type: ignore[operator]
    assert isinstance(rows[0], Scored)


def test_the_example_has_thirty_questions_of_every_kind_and_a_sound_file() -> None:
    questions = read_questions(EXAMPLE / "questions.jsonl")
    assert len(questions) >= 30
    assert {each.kind for each in questions} == {"date", "weather", "chain", "table", "query", "none", "absent"}
    assert len({each.id for each in questions}) == len(questions)
    assert load(EXAMPLE / "noria.toml").tasks["assistant"].tools


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"id": "a", "kind": "none", "question": "x"}\n{"id": "b", "kind": "odd", "question": "x"}\n')
    with pytest.raises(Invalid) as caught:
        read_questions(file)
    assert caught.value.where == "q.jsonl:2"
