"""Readers of documents: PDF, Word, Markdown and the main text of pages."""

from __future__ import annotations

import pytest
from files import MARKDOWN, PAGES, archive, docx, pdf

from noria.lake.docx import docx_rows
from noria.lake.html import main_sections, plain_text
from noria.lake.markdown import markdown_rows
from noria.lake.pdf import pdf_rows
from noria.lake.rows import Fault, Item, Row, Skip


def bodies(items: list[Item]) -> dict[str, str]:
    return {item.fields["heading"]: item.fields["body"] for item in items if isinstance(item, Row)}


def test_a_pdf_is_parted_at_larger_type() -> None:
    items = list(pdf_rows(PAGES))
    assert bodies(items) == {"Paying": "By card or cash.", "Returns": "In 30 days."}
    assert [(row.offset, row.fields["page"]) for row in items if isinstance(row, Row)] == [(1, "1"), (1, "1")]


def test_a_pdf_is_parted_by_its_outline() -> None:
    lines = [
        (10, 760, "1. How do I"),
        (10, 748, "pay?"),
        (10, 730, "By card"),
        (10, 718, "or cash."),
        (10, 690, "- in Euro"),
    ]
    data = pdf([lines, [(10, 760, "2. Returns"), (10, 730, "In 30 days.")]], [("How do I pay?", 0), ("Returns", 1)])
    items = list(pdf_rows(data))
    assert bodies(items) == {"How do I pay?": "By card or cash.\n- in Euro", "Returns": "In 30 days."}
    assert [row.offset for row in items if isinstance(row, Row)] == [1, 2]


def test_headers_and_footers_are_left_out() -> None:
    words = ("Apples are red.", "Pears are green.", "Plums are blue.", "Figs are sweet.")
    pages = [
        [
            (10.0, 800.0, "Fruit, a guide"),
            (10.0, 760.0, word),
            (10.0, 748.0, "So it is."),
            (10.0, 40.0, f"Page {n} of 4"),
        ]
        for n, word in enumerate(words, 1)
    ]
    items = list(pdf_rows(pdf(pages)))
    assert [row.fields["body"] for row in items if isinstance(row, Row)] == [f"{word} So it is." for word in words]


def test_running_heads_that_change_are_left_out_too() -> None:
    heads = ("Apples", "Pears", "Plums", "Figs")
    pages = [
        [
            (10.0, 800.0, f"On {head}"),
            (10.0, 760.0, f"{head} are good."),
            (10.0, 748.0, "Truly."),
            (10.0, 736.0, "Yes."),
        ]
        for head in heads
    ]
    items = list(pdf_rows(pdf(pages)))
    assert [row.fields["body"] for row in items if isinstance(row, Row)] == [
        f"{h} are good. Truly. Yes." for h in heads
    ]


def test_a_pdf_without_text_or_with_a_password_says_so() -> None:
    assert list(pdf_rows(pdf([[], []]))) == [
        Fault(0, "the PDF has no text layer: its pages are pictures, or empty; run OCR on it first")
    ]
    assert list(pdf_rows(pdf([[(10, 700, "x")]], locked=True))) == [
        Fault(0, "the PDF is encrypted: it needs a password")
    ]
    assert Skip("page without text") in list(pdf_rows(pdf([[(10, 700, "x")], []])))


def test_sections_of_a_word_document() -> None:
    items = list(docx_rows(docx()))
    assert bodies(items) == {
        "Wie zahle ich?": "Bar oder mit Karte.\n- Bargeld\nGröße | Preis\nL | €3",
        "Returns": "Within 30 days",
    }
    assert [item.reason for item in items if isinstance(item, Skip)] == [
        "text before the first heading",
        "section without text",
    ]


def test_a_bomb_in_a_word_document_is_not_unpacked() -> None:
    (fault,) = docx_rows(archive({"word/document.xml": b"0" * 30_000_000}))
    assert isinstance(fault, Fault)
    assert fault.reason == "'word/document.xml' unpacks to more than 200 times its size"


@pytest.mark.parametrize("data", [archive({"a": "b"}), archive({"[Content_Types].xml": "<x"}), b"PK\x03\x04"])
def test_an_archive_that_is_no_word_document_is_one_fault(data: bytes) -> None:
    (fault,) = docx_rows(data)
    assert isinstance(fault, Fault)
    assert "not a valid" in fault.reason


def test_sections_of_markdown() -> None:
    items = list(markdown_rows(MARKDOWN))
    assert bodies(items) == {
        "How do I pay?": "By **card**.\n\n```sh\n# no heading\n```",
        "Returns": "- within 30 days",
    }
    rows = [item for item in items if isinstance(item, Row)]
    assert MARKDOWN[rows[0].offset :].startswith(b"# 1. How")
    assert MARKDOWN[rows[1].offset :].startswith(b"Returns\n---")
    assert Skip("text before the first heading") in items


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("only text", {"": "only text"}),
        ("# A\n<!-- gone -->\nb\n```\n<!-- kept -->\n```", {"A": "b\n```\n<!-- kept -->\n```"}),
        ("# A\n~~~~\n# no\n~~~\n# no\n~~~~\nx", {"A": "~~~~\n# no\n~~~\n# no\n~~~~\nx"}),
        ("# [Link](u) *and* more ##\nx", {"Link and more": "x"}),
        ("#hashtag\n\n# A\nx\n\n---\n\ny", {"A": "x\n\n---\n\ny"}),
        ("A\n===\nx\n", {"A": "x"}),
        ("##### five\ntext", {"": "##### five\ntext"}),
    ],
)
def test_what_markdown_calls_a_heading(text: str, rows: dict[str, str]) -> None:
    assert bodies(list(markdown_rows(text.encode()))) == rows


def test_the_main_text_of_an_unknown_page() -> None:
    words = "We send parcels on every working day, and they arrive within three days in all of Europe. " * 4
    menu = "".join(f'<a href="/{n}">Entry {n}</a> ' for n in range(30))
    page = (
        f"<html><head><title>Help</title></head><body><div><span>{menu}</span></div><article><h2>Delivery</h2>"
        f"<p>{words}</p><h2>Returns</h2><p>{words}</p></article><div>© Shop</div></body></html>"
    )
    found = bodies(list(main_sections(page.encode())))
    assert found == {"Delivery": words.strip(), "Returns": words.strip()}


def test_a_page_as_plain_text() -> None:
    assert plain_text("<p>Hi<br>you</p><ul><li>a</ul><blockquote>old</blockquote><h1>End</h1>") == "Hi\nyou\n- a\nEnd"
