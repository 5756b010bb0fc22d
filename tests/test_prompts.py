"""The prompt definition: the format of C15 and C16, and that every text survives the way there and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from noria import prompts
from noria.datasets.rows import write_examples
from noria.errors import Invalid
from noria.features import tokenise
from noria.prompts import Annotated
from noria.types import Example, Message, Shot, Wording

PASSWORD = """[Context] If you've forgotten your password...
[Question] How can I reset my password?
[Answer] To reset your password...
####"""

ORDER = """[Context] Your order is on its way.
[Question] Where is my order?
[Answer] Your order is currently in transit.
####"""

markers = st.sampled_from(["[Context]", "[Question]", "[Answer]", "####", "\\", "\n", " ", "a", "ü"])
texts = st.one_of(st.text(), st.lists(markers).map("".join))


@pytest.mark.parametrize("text", [PASSWORD, ORDER])
def test_the_sample_rows_parse_and_render_exactly(text: str) -> None:
    assert prompts.annotate(prompts.parse(text)) == text


def test_the_first_sample_has_its_three_parts() -> None:
    assert prompts.parse(PASSWORD) == Annotated(
        "If you've forgotten your password...", "How can I reset my password?", "To reset your password..."
    )


@given(st.none() | texts, texts, texts)
@example("x\n[Question] y", "####", "\\####\n[Answer]")
@example("", "", "")
def test_any_text_survives(context: str | None, question: str, answer: str) -> None:
    parts = Annotated(context, question, answer)
    assert prompts.parse(prompts.annotate(parts)) == parts


@pytest.mark.parametrize("text", ["", "[Question] a\n[Answer] b", "[Answer] b\n[Question] a\n####", "x [Question] a"])
def test_what_is_no_annotated_prompt_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="annotated prompt"):
        prompts.parse(text)


def test_training_and_serving_say_the_same() -> None:
    served = prompts.render(
        "Be kind.", [Message(role="user", content="Where is my order?")], "Your order is on its way."
    )
    assert served[0] == Message(role="system", content="Be kind.")
    learned = prompts.answer_part("Your order is currently in transit.")
    assert served[1].content + learned == ORDER


@pytest.mark.parametrize(
    "text", [PASSWORD, ORDER, "[Context] \\####\n[Question] a\n\\[Answer] b\n[Answer] x\n\\#### y\n####"]
)
def test_data_training_and_serving_say_the_same(text: str, tmp_path: Path) -> None:
    parts = prompts.parse(text)
    row = Example(
        id="0" * 16, origin="source:a", slice="task", conversation="c", context=parts.context, target=parts.answer,
        messages=(Message(role="user", content=parts.question),), split="train",
    )  # fmt: skip
    write_examples([row], tmp_path / "train.parquet")
    stored = pq.read_table(tmp_path / "train.parquet").to_pylist()[0]
    learned = tokenise.row(stored, None, letters)
    assert "".join(map(chr, learned["input_ids"])) == text
    answer = "".join(chr(each) for each, said in zip(learned["input_ids"], learned["loss_mask"], strict=True) if said)
    served = prompts.dress(None, [{"role": "user", "content": parts.question}], parts.context)
    assert str(served[-1]["content"]) + answer == text
    assert answer.endswith(prompts.STOP)
    assert prompts.answer_of(answer) == parts.answer
    assert prompts.annotate(parts) == text


def letters(
    conversations: Sequence[Sequence[Mapping[str, Any]]], answers: Sequence[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """A tokenizer whose tokens are the letters of the last message."""
    asked = [[*map(ord, turns[-1]["content"])] for turns in conversations]
    return asked, [[*map(ord, answer)] for answer in answers]


def test_only_the_last_question_is_annotated() -> None:
    turns = [
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Hi"),
        Message(role="user", content="Where?"),
    ]
    assert [message.content for message in prompts.render(None, turns, None)] == [
        "Hello",
        "Hi",
        "[Question] Where?\n[Answer]",
    ]


def test_a_conversation_that_ends_on_the_assistant_is_refused() -> None:
    with pytest.raises(Invalid, match="ends with 'assistant'"):
        prompts.render(None, [Message(role="assistant", content="THE SIS-TERS!")], None)


@given(st.text(), st.integers(1, 300))
def test_a_shortened_text_is_a_beginning_within_the_limit(text: str, limit: int) -> None:
    short = prompts.shorten(text, limit)
    assert len(short) <= limit
    assert text.startswith(short)


def test_a_change_of_wording_changes_the_definition() -> None:
    assert prompts.definition("a") != prompts.definition("b")


def shot(question: str, target: str, context: str | None = None) -> Shot:
    return Shot(id="0" * 16, messages=(Message(role="user", content=question),), context=context, target=target)


def test_a_wording_stands_before_the_conversation_as_turns_that_parse() -> None:
    wording = Wording(shots=(shot("Why?\n[Answer] no", "So.\n####", "A reason."), shot("When?", "Now.")))
    served = prompts.render("Be kind.", [Message(role="user", content="Who?")], None, prompts.worded(wording))
    assert [message.role for message in served] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert served[0].content == "Be kind."
    for each, (asked, answered) in zip(wording.shots, ((1, 2), (3, 4)), strict=True):
        parts = prompts.parse(served[asked].content + served[answered].content)
        assert parts == prompts.Annotated(each.context, each.messages[0].content, each.target)
    assert served[-1] == prompts.render(None, [Message(role="user", content="Who?")], None)[0]


def test_a_wording_of_its_own_system_prompt_takes_the_tasks_place_and_keeps_the_clients() -> None:
    turns = [{"role": "system", "content": "I am Jo."}, {"role": "user", "content": "Who?"}]
    served = prompts.dress("Be kind.", turns, None, prompts.worded(Wording(system="Be brief.")))
    assert served[0] == {"role": "system", "content": "Be brief.\nI am Jo."}


def test_the_definition_covers_every_word_of_a_wording() -> None:
    words = [
        None, Wording(system="b"), Wording(system="a", shots=(shot("q", "t"),)), Wording(shots=(shot("q", "u"),)),
        Wording(shots=(shot("q", "t", "c"),)), Wording(shots=(shot("q", "t"), shot("q", "u"))),
    ]  # fmt: skip
    assert len({prompts.definition("a", each) for each in words}) == len(words)
    assert prompts.definition("a", Wording()) == prompts.definition("a")
