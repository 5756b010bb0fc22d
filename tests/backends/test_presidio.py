"""Names and places by the real model, offline; without it the extra is named."""

from __future__ import annotations

import importlib

import pytest

from noria.backends import presidio
from noria.datasets.scrub import Rules, Scrubber
from noria.errors import Unavailable
from noria.settings import ScrubSettings


@pytest.mark.slow
def test_names_and_places_are_found_where_they_are_asked_for() -> None:
    recognise = presidio.open_recogniser()
    text = "My name is Jane Miller and I live in Berlin."
    found = {text[each.start : each.end]: each.kind for each in recognise(text, ["name", "place"])}
    assert found == {"Jane Miller": "name", "Berlin": "place"}
    assert [each.kind for each in recognise(text, ["place"])] == ["place"]
    assert recognise("", ["name"]) == []
    scrubber = Scrubber(Rules(ScrubSettings(names=True)), recognise)
    assert scrubber.text("Jane Miller, jane@shop.example") == "<name>, <email>"
    long = f"{'word ' * 30_000}My name is Jane Miller."
    assert [long[each.start : each.end] for each in recognise(long, ["name"])] == ["Jane Miller"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(Unavailable) as caught:
        presidio.open_recogniser()
    assert caught.value.hint == "pip install 'noria[ner]'"
