"""Encodings: what a file says, UTF-8, or what can be told with confidence."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import Project

from noria.errors import Invalid
from noria.lake.encoding import Recoder, guess
from noria.lake.limited import Offsets

TEXTS = {
    "German": ("Die Größe der Straße ist für die Müller natürlich übertrieben, hören wir täglich.", "cp1252"),
    "French": ("Où est l'élève français ? Il a été très déçu par la forêt près de l'hôtel.", "cp1252"),
    "Spanish": ("El niño comió piñas mañana en España. ¿Cómo está usted? El camión pasó.", "cp1252"),
    "Swedish": ("Jag går till affären på lördag för att köpa bröd och smör, sedan åker vi över ån.", "cp1252"),
    "Polish": ("Zażółć gęślą jaźń. W Szczebrzeszynie chrząszcz brzmi w trzcinie, że łąka.", "cp1250"),
    "Polish, ISO": ("Zażółć gęślą jaźń. W Szczebrzeszynie chrząszcz brzmi w trzcinie, że łąka.", "iso8859_2"),
    "Czech": ("Příliš žluťoučký kůň úpěl ďábelské ódy, protože už bylo pozdě večer.", "cp1250"),
    "Turkish": ("İstanbul'da güneşli bir gün geçirdik, çay içtik, ağaçların altında oturduk.", "cp1254"),
    "Russian": ("Съешь ещё этих мягких французских булок да выпей чаю.", "cp1251"),
    "Russian, KOI8": ("Съешь ещё этих мягких французских булок да выпей чаю.", "koi8_r"),
    "Greek": ("Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.", "cp1253"),
    "Japanese": ("日本語の文章を書いています。これはテストのための文字列です。", "cp932"),
    "Chinese": ("这是一个用于测试字符编码检测的中文句子，我们希望它能够被正确识别。", "gb18030"),
}


@pytest.mark.parametrize("language", TEXTS)
def test_languages_are_told(language: str) -> None:
    text, encoding = TEXTS[language]
    found = guess((text * 3).encode(encoding))
    assert found is not None
    assert (text * 3).encode(encoding).decode(found) == text * 3


@pytest.mark.parametrize(
    "data",
    [
        "one café only".encode("latin-1"),
        ("Größe " * 20).encode() + "Größe".encode("latin-1"),
        bytes(range(256)) * 4,
        "Città è più però così qualità".encode("cp1252"),
    ],
)
def test_nothing_is_guessed_boldly(data: bytes) -> None:
    assert guess(data) is None


@given(st.binary(max_size=300))
def test_any_bytes_have_an_encoding_or_none(data: bytes) -> None:
    found = guess(data)
    assert found is None or codecs.lookup(found)


@given(st.text(alphabet="aé€–\n", min_size=1, max_size=40), st.sampled_from(["cp1252", "utf-16-le", "utf-32-be"]))
def test_offsets_are_those_of_the_file(text: str, encoding: str) -> None:
    told = text.encode()
    offsets = Offsets(0, told, encoding)
    for at in range(len(text)):
        assert offsets.of(len(text[:at].encode())) == len(text[:at].encode(encoding))


def test_a_file_in_another_encoding_is_read_and_told(tmp_path: Path) -> None:
    rows = "frage;antwort\nWie groß ist die Größe?;Für Müller übergroß.\nSchön?;Natürlich schön, täglich.\n"
    data = rows.encode("cp1252")
    (tmp_path / "a.csv").write_bytes(data)
    (tmp_path / "b.csv").write_text("frage;antwort\nÜber?;Ja.\n")
    (tmp_path / "c.csv").write_bytes(codecs.BOM_UTF16_LE + "frage;antwort\nÄh?;Öh.\n".encode("utf-16-le"))
    project = Project(tmp_path, 'kind = "csv"\npath = "*.csv"')
    documents = {row["text"]: row for row in project.run()["documents"]}
    assert project.told["encodings"] == {"cp1252": 1, "utf-8": 1, "utf-16-le": 1}
    row = documents["frage: Schön?\nantwort: Natürlich schön, täglich."]
    assert row["offset"] == data.index("Schön".encode("cp1252"))
    assert documents["frage: Äh?\nantwort: Öh."]["offset"] == 2 + len("frage;antwort\n") * 2


def test_an_encoding_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Così è.".encode("latin-1"))
    assert (
        Project(tmp_path, 'kind = "text"\npath = "a.txt"\nencoding = "latin-1"').run()["documents"][0]["text"]
        == "Così è."
    )
    with pytest.raises(Invalid, match="there is no encoding 'latin-42'"):
        Project(tmp_path, 'kind = "text"\npath = "a.txt"\nencoding = "latin-42"').run()


def test_pages_are_read_as_they_say_or_as_they_are(tmp_path: Path) -> None:
    text = "Für Größe, Straße, Mühe und Öl über Äcker"
    for name, charset, encoding in (
        ("a", "iso-8859-1", "latin-1"),
        ("b", "utf-8", "cp1252"),
        ("c", "none-such", "cp1252"),
    ):
        page = f'<meta charset="{charset}"><h1>Größe</h1><p>{text}</p>'
        (tmp_path / f"{name}.html").write_bytes(page.encode(encoding))
    project = Project(tmp_path, 'kind = "html"\npath = "*.html"')
    assert {row["text"] for row in project.run()["documents"]} == {f"Größe\n{text}"}
    assert project.told["encodings"] == {"iso8859-1": 1, "cp1252": 2}


def test_a_recoder_keeps_to_what_it_found() -> None:
    recoder = Recoder(None, declaring=False)
    recoder.start(b"plain")
    assert recoder.utf8(b"plain") == b"plain"
    text = "Größe für Müller, täglich schöne, natürlich große Äpfel"
    assert recoder.utf8(text.encode("cp1252")) == text.encode()
    assert recoder.utf8("é".encode("cp1252")) == "é".encode()
    assert recoder.told() == "cp1252"
