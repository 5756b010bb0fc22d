"""What is done with personal data in rows: by kind, by stable pseudonym, by dropping; what is allowed stays."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from noria.datasets.scrub import (
    DROP,
    Rules,
    Scrubber,
    keeps_document,
    params_of,
    pseudonym,
    read_key,
    rules_of,
)
from noria.errors import Invalid
from noria.guards import personal
from noria.settings import ScrubSettings
from noria.types import Document, Finding

KEY = bytes(range(32))
TEXT = "Ask anna@shop.example or ANNA@shop.example, 4111 1111 1111 1111, 192.0.2.7."


def cleaned(settings: ScrubSettings, text: str = TEXT) -> str:
    return Scrubber(Rules(settings, KEY)).text(text)


def test_kinds_have_actions_of_their_own() -> None:
    made = cleaned(ScrubSettings(actions={"email": "pseudonym"}, leave=("ip",)))
    first, second = made.split(" or ")
    token = first.removeprefix("Ask <email:").removesuffix(">")
    assert second == f"<email:{token}>, <card>, 192.0.2.7."
    assert token == pseudonym(KEY, "email", "Anna@Shop.example")
    assert token != pseudonym(KEY, "phone", "Anna@Shop.example") != pseudonym(KEY[1:], "phone", "Anna@Shop.example")


def test_what_is_allowed_stays() -> None:
    assert cleaned(ScrubSettings(allow=("Anna@shop.example",))) == TEXT.replace(
        "4111 1111 1111 1111", "<card>"
    ).replace("192.0.2.7", "<ip>")


def test_hardware_addresses_only_where_they_are_asked_for() -> None:
    text = "it is 00:1B:44:11:3A:B7"
    assert cleaned(ScrubSettings(), text) == text
    assert cleaned(ScrubSettings(mac=True), text) == "it is <mac>"


def test_a_kind_is_left_alone_or_acted_upon() -> None:
    with pytest.raises(ValidationError, match="'email' is left alone and has an action"):
        ScrubSettings(leave=("email",), actions={"email": "drop"})


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = read_key(tmp_path)
    assert read_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "pseudonym.key").stat().st_mode) == 0o600
    (tmp_path / "pseudonym.key").write_text("beef")
    with pytest.raises(Invalid, match="holds 2 bytes"):
        read_key(tmp_path)
    (tmp_path / "pseudonym.key").write_text("not hex")
    with pytest.raises(Invalid, match="is not hexadecimal"):
        read_key(tmp_path)


def test_the_run_key_follows_the_key_without_telling_it(tmp_path: Path) -> None:
    assert params_of(ScrubSettings(), tmp_path)["key"] is None
    assert not (tmp_path / "pseudonym.key").exists()
    settings = ScrubSettings(action="pseudonym")
    first, other = (params_of(settings, tmp_path / name)["key"] for name in "ab")
    assert first == params_of(settings, tmp_path / "a")["key"] != other
    assert str(first) not in (tmp_path / "a" / "pseudonym.key").read_text()
    assert rules_of(settings, tmp_path / "a").key == read_key(tmp_path / "a")


def document(number: int, text: str) -> Document:
    return Document(
        id=f"{number:016}", source="faq", text=text, fields={"body": text}, conversation=f"c{number}", file="f",
        offset=number, digest="0" * 16,
    )  # fmt: skip


def test_documents_are_dropped_whole() -> None:
    scrubber = Scrubber(Rules(ScrubSettings(actions={"card": "drop"})))
    plain, paid = (scrubber.document(document(n, text)) for n, text in enumerate(("a@b.example", TEXT)))
    assert keeps_document(plain)
    assert not keeps_document(paid)
    assert scrubber.counts == {"email": 3, "card": 1, "ip": 1}


def test_a_mark_that_comes_in_drops_nothing() -> None:
    scrubber = Scrubber(Rules())
    assert keeps_document(scrubber.document(document(1, f"plain{DROP} text")))


def jane(text: str, kinds: Sequence[str]) -> list[Finding]:
    start = text.find("Jane")
    return [] if start < 0 else [Finding(kind=kinds[0], start=start, end=start + 4, score=0.85, rule="fake")]


def test_names_are_looked_for_where_the_task_asks() -> None:
    text = "Jane wrote to a@b.example; Jane is here."
    assert Scrubber(Rules(), jane).text(text) == "Jane wrote to <email>; Jane is here."
    asked = Scrubber(Rules(ScrubSettings(names=True)), jane)
    assert asked.text(text) == "<name> wrote to <email>; <name> is here."
    assert asked.counts == {"email": 1, "name": 2}
    assert Scrubber(Rules(ScrubSettings(names=True, allow=("jane",))), jane).text("Jane") == "Jane"
    assert Scrubber(Rules(ScrubSettings(names=True, sample=0.0)), jane).text("Jane") == "Jane"


PIECES = st.sampled_from(
    ["phone ", "a1@b.example ", "5551234 ", "4111 1111 1111 1111 ", "0612345678 ", "BSN ", "111222333 ", "is ", "12 ",
     "\n", "order ", "DE89 3704 0044 0532 0130 00 ", "85073003328", "-", "password: Abc123! "]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map("".join), st.sampled_from(["replace", "pseudonym"]))
def test_what_was_scrubbed_does_not_leak(text: str, action: str) -> None:
    rules = Rules(ScrubSettings.model_validate({"action": action}), KEY)
    once = Scrubber(rules).text(text)
    assert personal.find_all(once) == []
