"""Predictions held against the truth: by hand in several languages, and what must always hold."""

from __future__ import annotations

import calendar
import random
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import Invalid
from noria.evaluation.truth import same
from noria.evaluation.values import Day, Quantity, atoms
from noria.settings import ComparisonSettings

TOLERANT = ComparisonSettings(kind="tolerant")
GERMAN = ComparisonSettings(kind="tolerant", decimal=",")


@pytest.mark.parametrize(
    ("prediction", "truth", "alike"),
    [
        ("The reset button.", "reset  BUTTON", True),
        ("Réinitialiser", "re\u0301initialiser!", True),
        ("3 days", "72 hours", False),
        ("red, blue", "blue, red", False),
        ("", "reset", False),
    ],
)
def test_exact_means_the_same_words_in_the_same_order(prediction: str, truth: str, alike: bool) -> None:
    assert same(prediction, truth, ComparisonSettings()) is alike


@pytest.mark.parametrize(
    ("prediction", "truth", "alike"),
    [
        # Numbers, however they are written.
        ("1,234.50", "1234.5", True),
        ("1.234,50", "1234.5", True),
        ("1 234,50 €", "EUR 1234.5", True),
        ("€1,234.50", "1 234,50 EUR", True),
        ("1'234.50", "1234.5", True),
        ("-5 °C", "−5.0 °C", True),
        ("-5", "5", False),
        ("1234", "1235", False),
        ("12 345 678", "12.345.678", True),
        ("٣ days", "3 days", True),
        ("12345678901234567", "12345678901234568", False),
        ("version v2.10", "version v2.1", False),
        # Units of one kind, in several languages.
        ("It takes 3 days.", "It takes 72 hours.", True),
        ("3 Tage", "72 Stunden", True),
        ("2 semaines", "14 jours", True),
        ("1,5 horas", "90 minutos", True),
        ("1 year", "12 months", True),
        ("1 month", "30 days", False),
        ("2.5 km", "2500 m", True),
        ("2.5 km", "2500 kg", False),
        ("5 MB", "5000 kB", True),
        ("5 MiB", "5000 kB", False),
        ("20 %", "20 percent", True),
        ("$20", "20 USD", True),
        ("$20", "20 EUR", False),
        # Dates, however they are written.
        ("1 March 2026", "2026-03-01", True),
        ("March 1st, 2026", "01/03/2026", True),
        ("1. März 2026", "1er mars 2026", True),
        ("1 de marzo de 2026", "1 marzo 2026", True),
        ("1 de março de 2026", "1 maart 2026", True),
        ("1 марта 2026", "2026年3月1日", True),
        ("It ends on 3 May.", "It ends on May 3rd.", True),
        ("3 May", "3 May 2026", False),
        ("May 2026", "1 May 2026", False),
        ("29 February", "Feb 29", True),
        ("03.04.2026", "2026-04-03", True),
        ("31 February 2026", "3 March 2026", False),
        # Lists in any order.
        ("red, green and blue", "blue, red, green", True),
        ("rot, grün und blau", "blau; rot; grün", True),
        ("rouge, vert et bleu", "bleu, rouge et vert", True),
        ("- red\n- green", "1. green\n2. red", True),
        ("赤、青", "青、赤", True),
        ("red, red, blue", "red, blue, blue", False),
        ("red, green", "red, green, blue", False),
        ("2 km, 3 days", "72 hours, 2000 m", True),
        # What differs otherwise still differs.
        ("Press the button.", "Do not press the button.", False),
        ("", "3", False),
    ],
)
def test_tolerant_by_hand(prediction: str, truth: str, alike: bool) -> None:
    assert same(prediction, truth, TOLERANT) is alike


@pytest.mark.parametrize(
    ("rule", "prediction", "truth", "alike"),
    [
        ({"relative": 0.05}, "104 km", "100 km", True),
        ({"relative": 0.05}, "106 km", "100 km", False),
        ({"absolute": 0.5}, "10.4 kg", "10 kg", True),
        ({"absolute": 0.5}, "10.6 kg", "10 kg", False),
        # The tolerance is in the truth's own unit.
        ({"absolute": 0.5}, "620 min", "10 h", True),
        ({"absolute": 0.5}, "10 h", "620 min", False),
        ({"decimal": ","}, "1.234", "1234", True),
        ({"decimal": ","}, "0.125", "0,125", True),
        ({"decimal": "."}, "1,234", "1234", True),
        ({"decimal": "."}, "1.234", "1234", False),
        ({"dates": "month-first"}, "03/04/2026", "March 4, 2026", True),
        ({"dates": "month-first"}, "03.04.2026", "3 April 2026", True),
        ({"dates": "day-first"}, "03/04/2026", "3 April 2026", True),
        ({"synonyms": [["phone", "mobile phone", "handy"]]}, "Restart your mobile phone", "restart your Handy", True),
        ({"synonyms": [["yes", "ja", "oui", "sí"]]}, "Oui!", "ja", True),
        ({"synonyms": [["yes", "ja"]]}, "no", "ja", False),
        ({"relative": 0.2}, "10, 11", "11.5, 9", True),
    ],
)
def test_tolerance_is_what_the_task_says(rule: dict[str, object], prediction: str, truth: str, alike: bool) -> None:
    settings = ComparisonSettings.model_validate({"kind": "tolerant", **rule})
    assert same(prediction, truth, settings) is alike


def test_items_are_paired_even_where_the_first_that_fits_is_the_wrong_one() -> None:
    rule = ComparisonSettings(kind="tolerant", absolute=1.0)
    assert same("10, 11", "11, 12", rule)
    assert same("11, 10", "11, 12", rule) is same("10, 11", "11, 12", rule)
    assert not same("10, 10", "11, 12", rule)


def test_a_judge_is_asked_where_the_task_says_so() -> None:
    asked: list[tuple[str, str]] = []

    def judge(prediction: str, truth: str) -> float:
        asked.append((prediction, truth))
        return 0.9 if "button" in prediction else 0.5

    rule = ComparisonSettings(kind="judge", judge="correctness")
    assert same("Use the button", "Press it", rule, judge)
    assert not same("Press it", "Press it", rule, judge)
    assert asked == [("Use the button", "Press it"), ("Press it", "Press it")]
    with pytest.raises(Invalid, match="wants a judge"):
        same("a", "b", rule)


@given(st.text(max_size=80))
def test_every_text_says_what_it_says(text: str) -> None:
    for rule in (ComparisonSettings(), TOLERANT, GERMAN):
        assert same(text, text, rule)


@given(st.text(max_size=40), st.text(max_size=40))
def test_without_a_tolerance_both_sides_are_alike(one: str, other: str) -> None:
    assert same(one, other, TOLERANT) is same(other, one, TOLERANT)


@given(st.lists(st.sampled_from(["red", "3 km", "1 May 2026", "blue sky", "42", "x"]), max_size=6), st.randoms())
def test_the_order_of_a_list_does_not_matter(items: list[str], drawing: random.Random) -> None:
    moved = drawing.sample(items, len(items))
    assert same("; ".join(items), "; ".join(moved), TOLERANT)
    assert same("\n".join(items), ", ".join(moved), TOLERANT)


@given(st.integers(0, 10**9), st.integers(0, 99))
def test_a_number_is_itself_in_every_form(whole: int, cents: int) -> None:
    american = f"{whole:,}.{cents:02d}"
    forms = [
        american, american.replace(",", "_").replace(".", ",").replace("_", "."),
        american.replace(",", " ").replace(".", ","), american.replace(",", "\u202f"), american.replace(",", "'"),
        f"{whole}.{cents:02d}", f"{whole},{cents:02d}",
    ]  # fmt: skip
    for form in forms:
        assert [each for each in atoms(form, ".", False) if each] == [Quantity(float(f"{whole}.{cents:02d}"))]
        assert not same(form, f"{whole + 1}.{cents:02d}", TOLERANT)


@given(st.dates(date(1970, 1, 1), date(2069, 12, 31)))
def test_a_date_is_itself_in_every_form(day: date) -> None:
    name = calendar.month_name[day.month]
    forms = [
        day.isoformat(), f"{day.day}.{day.month}.{day.year}", f"{day.day:02d}/{day.month:02d}/{day.year}",
        f"{day.day} {name} {day.year}", f"{name} {day.day}, {day.year}", f"{day.day} {name[:3]} {day.year}",
        f"{day.year}年{day.month}月{day.day}日", f"{day.month}/{day.day}/{day.year}",
    ]  # fmt: skip
    for form in forms:
        month_first = form is forms[-1]
        assert [each for each in atoms(form, ".", month_first) if not isinstance(each, str)] == [
            Day(day.year, day.month, day.day)
        ], form
