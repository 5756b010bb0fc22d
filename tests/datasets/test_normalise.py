"""Cleaning of one text: what survives, what goes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.datasets.normalise import boilerplate_of, clean_text, fold


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  two   spaces\u00a0here ", "two spaces here"),
        ("a\r\n\r\n  b\rc\u2028d", "a\nb\nc\nd"),
        ("zero\u200bwidth\ufeff so\u00adft bell\x07", "zerowidth soft bell"),
        ("ﬁne ﬁsh Ｆｕｌｌ", "fine fish Full"),
        ("cafe\u0301", "café"),
        ("Grüße! 3.14 €, a.b@x.de", "Grüße! 3.14 €, a.b@x.de"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("नमस्ते 你好 Привет 👩\u200d💻", "नमस्ते 你好 Привет 👩\u200d💻"),
        ("\u202eevil\u202c", "evil"),
        ("", ""),
    ],
)
def test_clean_text(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@given(st.text())
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once


@given(st.text())
def test_a_clean_text_has_the_same_exact_duplicates(text: str) -> None:
    assert fold(clean_text(text).upper()) == fold(fold(clean_text(text).upper()))


def test_boilerplate_is_what_most_documents_of_a_source_repeat() -> None:
    documents = Counter({"faq": 10, "tiny": 3})
    counts = [("faq", "Back to top", 9), ("faq", "Postage applies", 4), ("tiny", "Back to top", 3)]
    assert boilerplate_of(counts, documents) == {"faq": frozenset({"Back to top"})}
