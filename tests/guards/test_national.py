"""Numbers of people: published examples are found, one digit off they are not, and so is any valid one in any text."""

from __future__ import annotations

import random
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.personal import items, made, rows
from benchmarks.personal.run import is_covered
from noria.guards import personal
from noria.guards.personal import checksums
from noria.guards.personal.national import RULES

EXAMPLES = [
    ("de.tax_id", "86095742719"),
    ("de.tax_id", "86 095 742 719"),
    ("de.insurance", "15070649C103"),
    ("fr.nir", "2 55 08 14 168 025 38"),
    ("es.dni", "12345678Z"),
    ("es.nie", "X1234567L"),
    ("it.fiscal", "RSSMRA85T10A562S"),
    ("pl.pesel", "44051401359"),
    ("be.national", "85.07.30-033.28"),
    ("se.person", "811228-9874"),
    ("fi.hetu", "131052-308T"),
    ("ie.pps", "1234567T"),
    ("lt_ee.person", "37605030299"),
    ("lt_ee.person", "33309240064"),
    ("lv.person", "161175-19997"),
    ("ro.cnp", "1630615123457"),
    ("si.emso", "0101006500006"),
    ("cz.birth", "710319/2745"),
    ("dk.cpr", "211062-5629"),
    ("at.insurance", "1237 010180"),
    ("lu.person", "1893120105732"),
    ("gr.amka", "01013099997"),
    ("cy.tax", "00123123T"),
    ("us.ssn", "123-45-6789"),
    ("us.itin", "912-90-3456"),
]
"""From the authorities' own descriptions and from public test suites; they belong to nobody."""
TOLD = [
    ("nl.bsn", "BSN 111222333"),
    ("pt.nif", "NIF: 123456789"),
    ("gr.afm", "ΑΦΜ 094259216"),
    ("bg.egn", "ЕГН 7523169263"),
    ("hr.oib", "OIB: 33392005961"),
    ("hu.tax", "adóazonosító jel: 8071592153"),
    ("hu.taj", "TAJ szám: 111111110"),
    ("pl.nip", "NIP 8567346215"),
    ("mt.card", "ID card 0123456M"),
    ("us.ssn", "social security number 123456789"),
    ("us.ein", "EIN 12-3456789"),
    ("gb.nino", "National Insurance AB123456C"),
    ("dk.cpr_2007", "CPR-nummer 251299-4567"),
    ("lv.person_2017", "personas kods 329999-99999"),
]
CARRIERS = tomllib.loads((Path(rows.__file__).parent / "carriers.toml").read_text(encoding="utf-8"))
PLAIN = st.characters(exclude_categories=("Nd", "No", "Nl", "Cs"), exclude_characters="@:=([{")
LOOSE = {"cz.birth", "se.person"}
"""Carriers of these may hold no word of the country, and one of the forms is ten or twelve bare digits."""


@pytest.mark.parametrize(("rule", "number"), EXAMPLES)
def test_published_numbers_are_found_as_they_stand(rule: str, number: str) -> None:
    (found,) = personal.find(f"it is {number}, I think")
    assert (found.rule, found.start, found.end) == (rule, 6, 6 + len(number))
    assert rule not in [each.rule for each in personal.find(f"it is x{number}y, I think")]


@pytest.mark.parametrize(("rule", "text"), TOLD)
def test_weak_numbers_are_found_after_a_word_only(rule: str, text: str) -> None:
    assert [each.rule for each in personal.find(text)] == [rule]
    number = next(word for word in text.split() if any(map(str.isdigit, word)))
    assert personal.find(f"about {number} of them") == []


@pytest.mark.parametrize(("rule", "number"), [each for each in EXAMPLES if each[0] not in ("us.ssn", "us.itin")])
def test_one_digit_off_is_no_number_of_that_kind(rule: str, number: str) -> None:
    at = max(place for place, letter in enumerate(number) if letter.isdigit())
    wrong = number[:at] + str((int(number[at]) + 1) % 10) + number[at + 1 :]
    assert rule not in [each.rule for each in personal.find(f"it is {wrong}, I think")]


@given(st.sampled_from(sorted(made.NATIONAL)), st.integers(0, 10**9), st.data())
def test_any_valid_number_in_any_carrier_is_found(name: str, seed: int, data: st.DataObject) -> None:
    number = made.NATIONAL[name](random.Random(seed))
    carrier = data.draw(st.sampled_from(CARRIERS["ids"][name]))
    # A day with a time of day after it is a stamp, unless a word says what it is.
    stamp = re.fullmatch(r"20\d{6}-(?:[01]\d|2[0-3])[0-5]\d", number)
    if not stamp and (name not in LOOSE or not number.isdigit()):
        assert found_in(carrier, number, data)


@given(
    st.sampled_from([*items.PLAIN, "phone", "address"]),
    st.sampled_from(rows.LANGUAGES),
    st.integers(0, 10**9),
    st.data(),
)
@example("card", "en", 0, None)
def test_any_other_item_in_any_carrier_is_found(
    name: str, language: str, seed: int, data: st.DataObject | None
) -> None:
    rng = random.Random(seed)
    made_so = {"phone": items.phone, "address": items.address}.get(name)
    item = made_so(rng, language) if made_so else items.PLAIN[name](rng)
    carriers = CARRIERS[language][name]
    assert found_in(data.draw(st.sampled_from(carriers)) if data else carriers[0], item, data)


def found_in(carrier: str, item: str, data: st.DataObject | None) -> bool:
    """Whether all of an item is found, wherever the carrier stands."""
    before = data.draw(st.sampled_from(["", "Hello. ", "Bonjour !\n", "Ok 12, 13; "])) if data else ""
    start = len(before) + carrier.index("{x}")
    text = before + carrier.replace("{x}", item)
    return is_covered(text, rows.Planted("", "", start, start + len(item)), personal.find_all(text))


@given(st.text(alphabet=PLAIN, max_size=300))
def test_a_text_without_digits_and_signs_is_left_alone(text: str) -> None:
    assert personal.scrub(text) == (text, {}) or "pass" in text.lower()


@given(st.from_regex(r"[0-9]{1,20}", fullmatch=True))
def test_check_digits_catch_every_single_mistake(body: str) -> None:
    for check, right in ((checksums.luhn, made.luhn_digit), (checksums.verhoeff, made._verhoeff_digit)):
        number = body + right(body)
        assert check(number)
        for at in range(len(number)):
            wrong = number[:at] + str((int(number[at]) + 1) % 10) + number[at + 1 :]
            assert not check(wrong)


def test_every_rule_has_a_source_and_a_shape() -> None:
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names))
    for rule in RULES:
        assert rule.sure or rule.told
        assert rule.words or not rule.told
