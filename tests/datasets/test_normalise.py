"""Steps that change texts: what survives, what goes, and that twice is once."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.datasets import normalise
from noria.datasets.booklet import booklet_regex
from noria.datasets.texts import Opened, each, of, pieces, ready, through

DEFAULT = (normalise.unicode("NFC", True), normalise.whitespace())
LANGUAGES = {
    "German": "Grüße aus Köln! Straße 5, 3,14 €: „schön“ – a.b@x.de, 20 m², ½ Liter…",
    "French": "Où est ma commande n° 12 ? « Très bientôt », dit l’œuvre du maître.",
    "Greek": "Πού είναι η παραγγελία μου; Τι ώρα κλείνετε — στις 5;",
    "Hindi": "मेरा ऑर्डर कहाँ है? क्षमा कीजिए, वह रास्ते में है।",
    "Arabic": "أين طلبي؟ إنه في الطريق، وسيصل غدًا إن شاء الله ﷺ.",
    "Persian": "می\u200cخواهم بدانم",
    "Hebrew": "איפה ההזמנה שלי? היא בדרך.",
    "Chinese": "你好，世界！我的订单在哪里？（还在路上）",
    "Japanese": "ご注文は発送済みです。パスワードをリセット！",
    "Korean": "내 주문은 어디에 있나요?",
    "Thai": "น้ำและคำสั่งซื้อของฉันอยู่ที่ไหน",
    "emoji": "👩\u200d💻 ❤️ 👍🏽 🇩🇪 done ✅",
}


def run(text: str | Sequence[str], *steps: Opened) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text)
    batch = pa.record_batch({"source": ["s"] * len(texts), "text": texts, "fields": ["{}"] * len(texts)})
    found: list[str] = through(ready(steps), of(batch))[0].text.to_pylist()
    return found


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  two   spaces\u00a0here ", "two spaces here"),
        ("a\r\n\r\n  b\rc\u2028d", "a\nb\nc\nd"),
        ("zero\u200bwidth\ufeff so\u00adft bell\x07", "zerowidth soft bell"),
        ("ﬁne ﬁsh Ｆｕｌｌ ｶﾞ", "fine fish Full ガ"),
        ("cafe\u0301", "café"),
        ("e\u200b\u0301", "é"),
        ("\u202eevil\u202c", "evil"),
        ("", ""),
        (" \n\t\n ", ""),
    ],
)
def test_a_text_is_made_tidy(raw: str, clean: str) -> None:
    assert run(raw, *DEFAULT) == [clean]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_survives(language: str) -> None:
    text = LANGUAGES[language]
    assert run(f"  {text}\n\n{text} ", *DEFAULT) == [f"{text}\n{text}"]


def test_compatibility_forms_go_where_they_are_asked_to() -> None:
    assert run("m² … ，", normalise.unicode("NFKC", True)) == ["m2 ... ,"]
    assert run("ﬁ", normalise.unicode("NFC", False)) == ["ﬁ"]


@given(st.lists(st.text(), max_size=5))
def test_cleaning_twice_is_cleaning_once(texts: list[str]) -> None:
    once = run(texts, *DEFAULT)
    assert run(once, *DEFAULT) == once


HOSTILE = st.text(st.sampled_from("ab <>/&;#1ltgmp.:hw?[]\n\u00a0\u0301ﬁ“é👩\u200d\ufe0f²Ａ﹠"), max_size=40)


@pytest.mark.parametrize(
    "step",
    [
        normalise.unicode("NFKC", True),
        normalise.unicode("NFC", True),
        normalise.whitespace(),
        normalise.markup(),
        normalise.urls("<url>"),
        normalise.special_characters(True, ""),
        normalise.special_characters(False, "-"),
        normalise.lowercase(),
        booklet_regex(),
    ],
)
@given(texts=st.lists(st.text() | HOSTILE, max_size=4))
def test_each_step_twice_is_once(step: Opened, texts: list[str]) -> None:
    once = run(texts, step)
    assert run(once, step) == once


@given(st.lists(st.text() | HOSTILE, min_size=1, max_size=6))
def test_what_stands_beside_a_text_in_a_batch_does_not_matter(texts: list[str]) -> None:
    steps = (*DEFAULT, normalise.markup(), normalise.urls(""), normalise.lowercase())
    assert run(texts, *steps) == [run(text, *steps)[0] for text in texts]


def test_markup_that_was_left_behind_goes_and_other_brackets_stay() -> None:
    raw = "<p class='x'>Hi &amp;amp; bye<br/><!-- no --><script>alert(1)</script> List<int> a < b <email>"
    assert run(raw, normalise.markup(), normalise.whitespace()) == ["Hi & bye List<int> a < b <email>"]


def test_addresses_are_replaced_and_punctuation_behind_them_stays() -> None:
    raw = "See https://x.de/a?b=c#d, or (www.example.com). Not http://"
    assert run(raw, normalise.urls("<url>")) == ["See <url>, or (<url>). Not http://"]
    assert run("a https://x.de b", normalise.urls("")) == ["a  b"]


def test_special_characters_are_no_letters() -> None:
    text = " ".join(text for name, text in LANGUAGES.items() if name not in ("emoji", "German", "French", "Arabic"))
    assert run(text, normalise.special_characters(True, "")) == [text]
    assert run("ok ✅ 👩\u200d💻❤️ 5 € ─ end", normalise.special_characters(True, "✅")) == ["ok ✅  5 €  end"]
    assert run("Grüße! 3.14 € नमस्ते", normalise.special_characters(False, ".")) == ["Grüße 3.14  नमस्ते"]


def test_the_regex_of_books_does_what_it_says() -> None:
    assert run("Grüße! 3.14 €, a.b@x.de", booklet_regex(), normalise.lowercase()) == ["gre 314  abxde"]


def test_lower_case_is_for_all_scripts() -> None:
    assert run("ÄÖÜ ΠΟΥ ЖИЗНЬ É 你好", normalise.lowercase()) == ["äöü που жизнь é 你好"]


def test_exact_duplicates_differ_in_case_forms_and_white_space_only() -> None:
    texts = ["Straße  ﬁne\nDay", "STRASSE fine day", "strasse fine Day ", "Strase fine day"]
    batch = pa.record_batch({"source": ["s"] * 4, "text": texts, "fields": ["{}"] * 4})
    first, second, third, other = normalise.digests(of(batch)).to_pylist()
    assert first == second == third != other


@given(st.text())
def test_a_text_and_its_upper_case_have_a_stable_digest(text: str) -> None:
    batch = pa.record_batch({"source": ["s"] * 2, "text": [text, f" {text}\n"], "fields": ["{}"] * 2})
    assert len(set(normalise.digests(of(batch)).to_pylist())) == 1


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_characters_that_need_no_look_stay_what_they_are(form: Literal["NFC", "NFKC"]) -> None:
    every = [chr(code) for code in range(1, 0x20000) if not 0xD800 <= code < 0xE000]
    listed = normalise._FOLDED if form == "NFKC" else normalise._COMPOSED
    calm = {
        one
        for one, found in zip(every, pc.match_substring_regex(pa.array(every), f"[{listed}]").to_pylist(), strict=True)
        if found
    }
    assert all(unicodedata.normalize(form, one) == one for one in calm)
    assert form == "NFC" or all(one.casefold() == one for one in calm)
    second = {part for one in every for part in unicodedata.normalize("NFD", one)[1:]}
    assert not calm & second


def test_strings_are_folded_wherever_they_lie_in_an_engines_batch() -> None:
    whole = pa.array(["Left OUT", "ÉTÉ", "Plain", "ﬁne", "x ≤ ½"])
    offsets = pa.py_buffer(whole.buffers()[1].to_pybytes()[4:])
    sliced = pa.Array.from_buffers(pa.string(), 4, [None, offsets, whole.buffers()[2]])
    assert normalise.folded(sliced, each(str.casefold)).to_pylist() == ["été", "plain", "ﬁne".casefold(), "x ≤ ½"]


@given(st.lists(st.tuples(st.text(), st.text()), max_size=3))
def test_fields_that_change_are_the_same_json(pairs: list[tuple[str, str]]) -> None:
    fields = dict([*pairs, ("lang", "A\u200b")])
    batch = pa.record_batch({"source": ["s"] * 2, "text": [""] * 2, "fields": ["{}", json.dumps(fields)]})
    left, _ = through(ready(DEFAULT), of(batch))
    changed = {name: run(value, *DEFAULT)[0] for name, value in fields.items()}
    assert left.fields(batch.column("fields")).to_pylist() == ["{}", json.dumps(changed, ensure_ascii=False)]


@pytest.mark.slow
def test_batches_are_cut_by_bytes() -> None:
    batch = pa.record_batch({"text": ["x" * (1 << 20)] * 200})
    cut = list(pieces(iter([batch, batch.slice(0, 0)])))
    assert sum(piece.num_rows for piece in cut) == 200
    assert max(piece.nbytes for piece in cut) <= 1 << 26
