"""Readers of dialogues: which format, who answers, what was said before."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from files import DAY, MBOX, MESSAGES, OPENAI, SLACK, WHATSAPP, archive, arrow, parquet

from noria.lake.chat import chat_rows
from noria.lake.dialogue import HISTORY
from noria.lake.mail import mbox_rows, own_words
from noria.lake.rows import Fault, Item, Row, Skip


def rows(items: list[Item]) -> list[Row]:
    return [item for item in items if isinstance(item, Row)]


def said(items: list[Item]) -> list[tuple[str, str]]:
    return [(row.fields["question"], row.fields["answer"]) for row in rows(items)]


SHAREGPT = {
    "system": "Be kind.",
    "conversations": [
        {"from": {"user": "human", "assistant": "gpt"}[str(turn["role"])], "value": turn["content"]}
        for turn in MESSAGES[1:]
    ],
}


@pytest.mark.parametrize(
    "data",
    [
        OPENAI,
        b"[" + OPENAI + b"]",
        OPENAI + b"\n\n" + b"\n",
        json.dumps(SHAREGPT, indent=1).encode(),
        json.dumps(MESSAGES).encode(),
        json.dumps({"messages": MESSAGES[:-1], "answer": "Llega mañana.", "id": "i"}).encode(),
        json.dumps({"messages": MESSAGES[:-1], "target": "Llega mañana."}).encode(),
        arrow(pa.table({"messages": [MESSAGES]})),
        parquet(pa.table({"id": [1], "messages": [MESSAGES]})),
    ],
    ids=["object", "array", "lines", "sharegpt", "bare", "interaction", "example", "arrow", "parquet"],
)
def test_one_dialogue_in_every_form(data: bytes) -> None:
    found = rows(list(chat_rows(data)))
    assert said(list(chat_rows(data))) == [("Hola, ¿qué tal?", "Bien."), ("¿Y mi pedido?", "Llega mañana.")]
    assert [json.loads(row.fields["history"]) for row in found] == [
        [],
        [{"role": "user", "content": "Hola, ¿qué tal?"}, {"role": "assistant", "content": "Bien."}],
    ]
    assert {row.fields["system"] for row in found} == {"Be kind."}
    assert len({row.conversation for row in found}) == 1
    assert found[0].text == "Hola, ¿qué tal?\nBien."


def test_lines_are_placed_by_bytes_and_fail_alone() -> None:
    data = OPENAI + b'\n{"messages": [}\n{"x": 1}\n7\n' + OPENAI
    items = list(chat_rows(data))
    assert [(item.offset, item.reason.partition(":")[0]) for item in items if isinstance(item, Fault)] == [
        (data.index(b'{"messages": [}'), "not valid JSON"),
        (data.index(b'{"x"'), "not a dialogue"),
        (data.index(b"7\n"), "not a dialogue"),
    ]
    assert {row.offset for row in rows(items)} == {0, len(data) - len(OPENAI)}
    assert len({row.conversation for row in rows(items)}) == 1


def test_what_is_not_to_be_learned_is_history_only() -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": [{"type": "text", "text": "e"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "{}"},
        {"role": "assistant", "content": "f"},
        {"role": "user", "content": "g"},
    ]
    items = list(chat_rows(json.dumps({"messages": turns}).encode()))
    assert said(items) == [("e", "f")]
    assert [turn["content"] for turn in json.loads(rows(items)[0].fields["history"])] == ["a", "b", "c", "d"]
    reasons = [item.reason for item in items if isinstance(item, Skip)]
    assert reasons == ["turn of a tool"] * 2 + ["answer that is not to be learned"] * 2 + ["question without an answer"]


def test_preferences_keep_what_was_rejected() -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "q"}]},
        "preferred_output": [{"role": "assistant", "content": "good"}],
        "non_preferred_output": [{"role": "assistant", "content": "bad"}],
    }
    (row,) = rows(list(chat_rows(json.dumps(pair).encode())))
    assert (row.fields["question"], row.fields["answer"], row.fields["rejected"]) == ("q", "good", "bad")


def test_long_dialogues_keep_the_newest_history() -> None:
    turns = [{"role": role, "content": f"{role} {n}"} for n in range(50) for role in ("user", "assistant")]
    last = rows(list(chat_rows(json.dumps(turns).encode())))[-1]
    history = json.loads(last.fields["history"])
    assert len(history) == HISTORY
    assert history[-1] == {"role": "assistant", "content": "assistant 48"}


def test_whatsapp_dialogues_are_parted_by_silence() -> None:
    items = list(chat_rows(WHATSAPP))
    assert said(items) == [("Hallo!\nWo ist mein Paket?", "Unterwegs."), ("Ja. Kann ich es umtauschen?", "Klar.")]
    first, second = rows(items)
    assert WHATSAPP[first.offset :].startswith(b"12.03.24, 14:05 - Anna: Hallo!")
    assert first.conversation != second.conversation
    assert json.loads(second.fields["history"]) == [{"role": "assistant", "content": "Ist es da?"}]
    assert "Anna" not in str(items)
    reasons = {item.reason for item in items if isinstance(item, Skip)}
    assert reasons == {"line of the system", "media or deleted message"}
    assert said(list(chat_rows(WHATSAPP, assistants=["Anna"]))) == [("Ist es da?", "Ja. Kann ich es umtauschen?")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("[25.03.24, 14:05:33] Al: q", "\u200e[25.03.24, 14:06:00] ~\u202fBo: a"),
        ("3/25/24, 2:05\u202fPM - Al: q", "3/25/24, 2:06\u202fPM - Bo: a"),
        ("25/03/2024 à 14:05 - Al: q", "25/03/2024 à 14:06 - Bo: a"),
        ("25/3/2024, 2:05 p. m. - Al: q", "25/3/2024, 2:06 p. m. - Bo: a"),
        ("25-03-2024 14:05 - Al: q", "25-03-2024 14:06 - Bo: a"),
        ("25.3.2024 klo 14.05 - Al: q", "25.3.2024 klo 14.06 - Bo: a"),
        ("2024/3/25 下午2:05 - Al: q", "2024/3/25 下午2:06 - Bo: a"),
        ("[2024-03-25, 2:05:33 PM] Al: q", "[2024-03-25, 2:06:33 PM] Bo: a"),
        ("25/03/24, 14:05 - Al: q", "25/03/24, 14:06 - Bo: a <This message was edited>"),
        ("25/03/24, 14:05 - Al: IMG-1.jpg (file attached)\nq", "25/03/24, 14:06 - Bo: a"),
    ],
)
def test_whatsapp_speaks_many_locales(first: str, second: str) -> None:
    assert said(list(chat_rows(f"{first}\r\n{second}\r\n".encode()))) == [("q", "a")]
    zipped = archive({"_chat.txt": f"{first}\n{second}\n", "a.jpg": b"x"})
    assert said(list(chat_rows(zipped))) == [("q", "a")]


def test_a_slack_thread_is_a_dialogue_over_days() -> None:
    items = list(chat_rows(SLACK))
    (row,) = rows(items)
    assert row.fields["question"] == "Where is <it>?"
    assert row.fields["answer"] == "@user see here (https://x.example/a) in #help"
    assert (row.fields["channel"], row.offset) == ("help", 1)
    assert "U1" not in str(items)
    assert said(list(chat_rows(json.dumps(DAY).encode()))) == said(items)
    assert said(list(chat_rows(SLACK, assistants=["U1"]))) == []


def test_mail_threads_are_dialogues() -> None:
    items = list(mbox_rows(MBOX))
    (row,) = rows(items)
    assert row.fields == {
        "question": "Which size?\n\nFrom here I cannot tell.",
        "answer": "Size L.",
        "history": "[]",
        "subject": "Größe",
    }
    assert Skip("question without an answer") in items
    assert "ann@x.example" not in str(items)
    answers = said(list(mbox_rows(MBOX, assistants=["ann@x.example"])))
    assert answers == [("Size L.", "Danke!")]


def test_one_message_and_none() -> None:
    assert list(mbox_rows(b"From: a@x.example\nMessage-ID: <1@x>\n\nHello.\n")) == [Skip("question without an answer")]
    assert list(mbox_rows(b"")) == []
    (fault,) = mbox_rows(b"just text")
    assert isinstance(fault, Fault)
    assert fault.reason.startswith("not a message")


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("Yes.\n\nOn Mon, 1 Jan 2024 at 10:00, Ann <a@x>\nwrote:\n> Well?\n", "Yes."),
        ("Oui.\nLe lun. 1 janv. 2024 à 10:00, Ann a écrit :\n> Alors ?", "Oui."),
        ("> One?\nFirst.\n> Two?\nSecond.", "First.\nSecond."),
        ("Ja.\n\nVon: Ann\nGesendet: Montag\nAn: Bo\n\nalt", "Ja."),
        ("Sí.\n-----Mensaje original-----\nviejo", "Sí."),
        ("Si.\n-- \nAnn\nTel. 1", "Si."),
        ("Ok.\nSent from my phone", "Ok."),
        ("Am Montag schrieb ich es auf, hier ist es:\n1. Brot", "Am Montag schrieb ich es auf, hier ist es:\n1. Brot"),
    ],
)
def test_what_is_quoted_is_not_ones_own(text: str, own: str) -> None:
    assert own_words(text) == own


@pytest.mark.parametrize("data", [b"no chat at all", b"PK\x03\x04 broken", archive({"a.bin": b"x"}), b"{", b'{"a": 1}'])
def test_what_is_no_chat_is_a_fault(data: bytes) -> None:
    (fault,) = chat_rows(data)
    assert isinstance(fault, Fault)
