"""What is asked: the shipped scenarios, own files, logged questions."""

from __future__ import annotations

from pathlib import Path

import pytest

from noria.errors import Invalid, NoriaError, NotFound
from noria.evaluation import scenarios


def test_the_lab_has_ten_prompts() -> None:
    (lab,) = scenarios.named("lab")
    assert len({ask.messages for ask in lab.asks}) == 10


def test_the_lesson_is_seven_equal_prompts_and_seven_that_share_no_beginning() -> None:
    equal, varied = scenarios.named("lesson")
    assert len(equal.asks) == len(varied.asks) == 7
    assert {ask.messages[0].content for ask in equal.asks} == {scenarios.LESSON * 200}
    assert {len(ask.messages[0].content) for ask in (*equal.asks, *varied.asks)} == {9600}
    assert len({ask.messages[0].content[:10] for ask in varied.asks}) == 7
    assert equal.concurrency == (7,)


def test_every_needle_is_in_its_text_once_and_at_its_place() -> None:
    (needle,) = scenarios.named("needle")
    assert len(needle.asks) == len(scenarios.LENGTHS) * len(scenarios.SHARES)
    for ask in needle.asks:
        text = ask.messages[0].content
        assert text.count(ask.expects) == 1
        share = int(ask.place.rpartition(" ")[2].rstrip("%")) / 100
        assert abs(text.index(ask.expects) / len(text) - share) < 0.15


def test_256_texts_come_one_by_one_and_in_batches() -> None:
    single, batch = scenarios.named("embeddings")
    assert len({ask.texts for ask in single.asks}) == 256
    assert sum(len(ask.texts) for ask in batch.asks) == 256
    assert single.embeds
    assert batch.embeds


def test_talks_of_the_chat_end_with_the_user() -> None:
    (chat,) = scenarios.named("chat")
    assert {ask.messages[-1].role for ask in chat.asks} == {"user"}
    assert {ask.messages[0].role for ask in chat.asks} == {"system"}


def test_own_prompts_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "Hi", "expects": "hello"}\n\n{"messages": [{"role": "user", "content": "Ho"}]}\n')
    (mine,) = scenarios.named(str(file))
    assert [(ask.messages[0].content, ask.expects) for ask in mine.asks] == [("Hi", "hello"), ("Ho", "")]
    assert mine.name == "mine"


@pytest.mark.parametrize("line", ["{", "[]", '{"text": "x"}', '{"prompt": 3}', '{"messages": [{"role": "x"}]}', ""])
def test_other_lines_are_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(Invalid):
        scenarios.of_file(file)


@pytest.mark.parametrize(("name", "error"), [("labb", NotFound), ("none.jsonl", NotFound)])
def test_an_unknown_scenario_is_named(name: str, error: type[NoriaError]) -> None:
    with pytest.raises(error, match=name):
        scenarios.named(name)


def test_the_latest_questions_come_once_each_and_pictures_not() -> None:
    talks: list[list[dict[str, object]]] = [[{"role": "user", "content": f"Question {n % 40}"}] for n in range(80)]
    talks.append([{"role": "user", "content": [{"type": "image_url"}]}])
    found = scenarios.of_traffic(talks)
    assert len(found.asks) == scenarios.TRAFFIC
    assert found.asks[-1].messages[0].content == "Question 39"
    with pytest.raises(NotFound, match="no questions"):
        scenarios.of_traffic([])


def test_a_round_has_as_many_requests_as_are_sent_at_once() -> None:
    (lab,) = scenarios.named("lab")
    assert len(scenarios.sent(lab, None, 16)) == 16
    assert len(scenarios.sent(lab, None, 4)) == 10
    assert len(scenarios.sent(lab, 3, 4)) == 3
