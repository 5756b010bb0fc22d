"""Agreement of answers with their sources, in several scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.guards.grounding import MOST_SAID, ground, sentences, source

MANUAL = (
    "To reset your password, open the settings page. Then press the reset button. "
    "The link is valid for 24 hours. Passwords have at least 12 characters."
)


def test_what_an_answer_rests_on_is_told_apart_from_what_it_does_not() -> None:
    found = ground(source(MANUAL), "Open the settings page and press the reset button. Our office closes on Sundays.")
    assert found.supported == ("To reset your password, open the settings page.", "Then press the reset button.")
    assert found.unused == ("The link is valid for 24 hours.", "Passwords have at least 12 characters.")
    assert found.unsupported == ("Our office closes on Sundays.",)
    assert found.support is not None
    assert 0.3 < found.support < 0.8


def test_a_number_that_nobody_gave_is_not_supported() -> None:
    assert ground(source(MANUAL), "The link is valid for 24 hours.").unsupported == ()
    assert ground(source(MANUAL), "The link is valid for 48 hours.").unsupported == ("The link is valid for 48 hours.",)
    repeated = ground(
        source(MANUAL), "The link for order 77 is valid for 24 hours.", "How long is order 77's link valid?"
    )
    assert repeated.unsupported == ()


@pytest.mark.parametrize(
    ("context", "answer", "other"),
    [
        ("Setzen Sie das Kennwort in den Einstellungen zurück.", "Das Kennwort setzt man in den Einstellungen zurück.",
         "Berlin liegt an der Spree."),
        ("Чтобы сбросить пароль, откройте настройки.", "Откройте настройки и сбросьте пароль.",
         "Москва — столица России."),
        ("重置密码请打开设置页面，然后点击重置按钮。", "点击设置页面的重置按钮。", "北京是中国的首都。"),
        ("パスワードは設定ページで変更できます。", "設定ページでパスワードを変更できます。", "東京は日本の首都です。"),
        ("รีเซ็ตรหัสผ่านในหน้าการตั้งค่า", "ไปที่หน้าการตั้งค่าเพื่อรีเซ็ตรหัสผ่าน", "กรุงเทพเป็นเมืองหลวง"),
        ("رمز المرور صالح لمدة ٢٤ ساعة.", "رمز المرور صالح ٢٤ ساعة.", "القاهرة عاصمة مصر."),
        ("पासवर्ड बदलने के लिए सेटिंग खोलें।", "सेटिंग खोलें और पासवर्ड बदलें।", "दिल्ली भारत की राजधानी है।"),
    ],
)  # fmt: skip
def test_it_works_in_any_script(context: str, answer: str, other: str) -> None:
    good, bad = ground(source(context), answer), ground(source(context), other)
    assert good.unsupported == ()
    assert bad.unsupported == (other,)
    assert good.support is not None
    assert bad.support is not None
    assert good.support > 0.6 > 0.4 > bad.support


def test_sentences_end_where_scripts_end_them() -> None:
    assert sentences("One. Two!\n\nThree 3.5 items؟ نعم。四！五") == [
        "One.",
        "Two!",
        "Three 3.5 items؟",
        "نعم。",
        "四！",
        "五",
    ]


def test_an_answer_without_words_has_no_support() -> None:
    assert ground(source(MANUAL), " … ").support is None
    assert ground(source(""), "Something.").support == 0.0


@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=50))
def test_whatever_the_texts_every_sentence_is_told_once(context: str, answer: str, asked: str) -> None:
    found = ground(source(context), answer, asked)
    assert sorted((*found.supported, *found.unused)) == sorted(sentences(context))
    assert set(found.unsupported) <= set(sentences(answer))
    assert found.support is None or 0.0 <= found.support <= 1.0


@given(st.text(min_size=1, max_size=300))
def test_a_text_supports_itself(text: str) -> None:
    found = ground(source(text), text)
    assert found.unsupported == ()
    assert found.support in (None, 1.0)


def test_of_endless_texts_only_the_beginning_is_looked_at() -> None:
    found = ground(source("word " * 100_000), "Nothing.\n" * 5000)
    assert len(found.unsupported) == MOST_SAID
