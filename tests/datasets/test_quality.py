"""Steps that drop documents: bounds are inside, published rules do what they say, other scripts are not harmed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pytest

from noria.datasets import quality
from noria.datasets.missing import missing
from noria.datasets.steps import ROWS
from noria.datasets.texts import Opened, Texts, of, ready, through
from noria.settings import STEPS, options_of

CHINESE = "你好，世界！我的订单在哪里？它还在路上，请耐心等待。谢谢您的来信。" * 3
THAI = "น้ำและคำสั่งซื้อของฉันอยู่ที่ไหนกรุณารอสักครู่" * 3
PROSE = (
    "The wheel lifts water as it goes, and the stream itself turns it. Every bucket that comes up has been down there "
    "before; nothing is lost but a few drops on the way. Farmers have built such machines for two thousand years, with "
    "wood, rope and clay. A good one needs no master: it works by day, by night, in rain or shine. Repairs are rare."
)


def texts_of(rows: Sequence[tuple[str, Mapping[str, str]]], source: str = "s") -> Texts:
    fields = [json.dumps(found, ensure_ascii=False) for _, found in rows]
    columns = {"source": [source] * len(rows), "text": [text for text, _ in rows], "fields": fields}
    return of(pa.record_batch(columns))


def kept(texts: Sequence[str], *steps: Opened) -> list[str]:
    found: list[str] = through(ready(steps), texts_of([(text, {}) for text in texts]))[0].text.to_pylist()
    return found


def step(name: str, **options: object) -> Opened:
    return ROWS[name](**options_of(STEPS[name].model_validate({"step": name, **options})))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ROWS.keys() - {"boilerplate", "language"}))
def test_every_step_takes_the_options_that_a_task_may_give(name: str) -> None:
    assert len(kept(["", "x", PROSE], step(name))) <= 3
    assert kept([], step(name)) == []


def test_length_counts_letters_of_all_scripts() -> None:
    assert kept(["", "?!", "a", "5€", "5m", "你好", "né"], step("length")) == ["5m", "你好", "né"]
    assert kept(["abc", "abcd", "äbcdé", "abcdef"], step("length", min_chars=4, max_chars=5)) == ["abcd", "äbcdé"]
    assert kept(["one", "one two", "a b c d", "你好世界"], step("length", min_words=2, max_words=3)) == [
        "one two",
        "你好世界",
    ]


@pytest.mark.slow
def test_gopher_keeps_prose_and_drops_what_is_none() -> None:
    bad = {
        "short": "The few words of this text and that of others",
        "long words": " ".join(["Donaudampfschifffahrtsgesellschaft"] * 60),
        "hash signs": PROSE + " #" * 10,
        "ellipses": PROSE + " ..." * 10,
        "bullets": "\n".join("- " + line for line in PROSE.split(".")),
        "cut lines": "\n".join(line + " …" for line in (PROSE + PROSE).split(".")[:6]) + "\n" + PROSE,
        "numbers": " ".join(str(n) for n in range(1000, 1090)),
    }
    assert kept([PROSE, *bad.values()], step("gopher"))[0] == PROSE
    dropped = {name for name, text in bad.items() if not kept([text], step("gopher"))}
    assert dropped == bad.keys()
    assert kept([PROSE], step("gopher", min_stop_words=9)) == []


@pytest.mark.slow
def test_gopher_knows_stop_words_of_other_languages_and_spares_other_scripts() -> None:
    german = (
        "Das Rad hebt das Wasser, und der Bach selbst dreht es. Jeder Eimer, der nach oben kommt, war schon dort "
        "unten gewesen; nichts geht verloren außer ein paar Tropfen auf dem Weg. Die Bauern haben solche Räder seit "
        "zweitausend Jahren gebaut, mit Holz, Seilen und Ton. Eine gute braucht keinen Meister, sie geht Tag und Nacht."
    )
    assert kept([german, CHINESE, THAI], step("gopher")) == [german, CHINESE, THAI]
    assert kept([german], step("gopher", stop_words={"de": ["xyz", "abc"]})) == []


def test_repetition_finds_lines_and_runs_that_come_again() -> None:
    lines = PROSE.replace(". ", ".\n")
    again = {
        "lines": "\n".join(["Buy now.", "Best price of all.", "Buy now.", "Buy now.", "Hello there."]),
        "two words": "spam eggs " * 40,
        "runs": PROSE + " " + PROSE,
    }
    assert kept([PROSE, lines, *again.values()], step("repetition")) == [PROSE, lines]
    assert kept(["One two three four."], step("repetition")) == ["One two three four."]
    assert kept([again["lines"]], step("repetition", lines=1, line_chars=1, top={}, runs={})) == [again["lines"]]


def test_characters_of_overlapping_runs_count_once() -> None:
    words = list("abcabcabc")
    runs = list(zip(words, words[1:], words[2:], strict=False))
    assert quality._repeated_chars(runs, [1] * 9, 3) == 6


def test_c4_keeps_sentences_and_drops_pages_without() -> None:
    page = f"{PROSE}\nHome | About\nPlease enable Javascript to see this page well.\nThis is a good long line [1].\n"
    assert kept([page], step("c4")) == [f"{PROSE}\nThis is a good long line."]
    assert (
        kept(["Lorem ipsum dolor. " + PROSE, "if (x) { y } " + PROSE, "One sentence of five words."], step("c4")) == []
    )
    assert kept([CHINESE, THAI], step("c4")) == [CHINESE, THAI]
    assert kept(["No end to this title"], step("c4", terminal=False, min_sentences=0)) == ["No end to this title"]
    once = kept([page, "x [[1]2] y"], step("c4", min_sentences=0, min_line_words=0, terminal=False))
    assert kept(once, step("c4", min_sentences=0, min_line_words=0, terminal=False)) == once


def test_sentences_end_by_the_marks_of_their_language() -> None:
    assert quality.sentences("One. Two? “Three!” 3.14 is a number") == 4
    assert quality.sentences("你好。世界！吗？") == 3
    assert quality.sentences("वह आया। वह गया।") == 2


def test_missing_values_are_dropped_or_filled() -> None:
    rows = [("a", {"q": "Q", "a": "A"}), ("b", {"q": "Q", "a": " "}), ("c", {"q": "Q"}), ("d", {"q": "", "a": "A"})]
    texts = texts_of(rows)
    left, dropped = through(ready([missing({"s": ("q", "a"), "other": ("z",)}, None)]), texts)
    assert left.text.to_pylist() == ["a"]
    assert dropped[0].tolist() == [1, 2, 3]
    filled, dropped = through(ready([missing({"s": ("q", "a")}, "n/a")]), texts)
    assert not dropped
    before = pa.array([json.dumps(fields) for _, fields in rows])
    assert [json.loads(found) for found in filled.fields(before).to_pylist()] == [
        {"q": "Q", "a": "A"},
        {"q": "Q", "a": "n/a"},
        {"q": "Q", "a": "n/a"},
        {"q": "n/a", "a": "A"},
    ]


def test_other_sources_miss_nothing() -> None:
    texts = texts_of([("a", {}), ("b", {})], source="page")
    assert len(through(ready([missing({"s": ("q",)}, None)]), texts)[0]) == 2
