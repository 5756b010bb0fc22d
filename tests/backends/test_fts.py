"""The full-text index: what comes first, in every script, whatever the query."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.backends.fts import FtsIndex, Indexes
from noria.errors import Invalid, NotFound
from noria.ports import Hit
from noria.types import Document, digest_of


def document(heading: str, body: str) -> Document:
    return Document(
        id=digest_of([heading, body]), source="faq", text=f"{heading}\n{body}",
        fields={"heading": heading, "body": body}, conversation="", file="faq.html", offset=0, digest="0" * 64,
    )  # fmt: skip


FAQ = [
    document("How do I reset my password?", "Click the link on the sign-in page."),
    document("Where is my order?", "Track the order under My orders; resetting nothing helps."),
    document("Crème brûlée", "Une recette."),
    document("我的订单在哪里", "请查看我的账户。"),
    document("मेरा पार्सल कहाँ है", "पार्सल रास्ते में है।"),
    document("Γιατί αργεί το δέμα;", "Λόγω καιρού."),
]


def texts(hits: list[Hit]) -> list[str]:
    return [hit.text for hit in hits]


@pytest.fixture
def index(tmp_path: Path) -> FtsIndex:
    Indexes().build(FAQ, tmp_path)
    opened = Indexes().open(tmp_path)
    assert isinstance(opened, FtsIndex)
    return opened


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("password resets", FAQ[0].fields["body"]),
        ("ORDER", FAQ[1].fields["body"]),
        ("creme BRULEE", FAQ[2].fields["body"]),
        ("订单", FAQ[3].fields["body"]),
        ("पार्सल", FAQ[4].fields["body"]),
        ("το δέμα αργεί", FAQ[5].fields["body"]),
    ],
)
def test_the_nearest_body_comes_first(index: FtsIndex, query: str, body: str) -> None:
    assert texts(index.search(query, 1)) == [body]


def test_a_heading_counts_more_than_a_body(index: FtsIndex) -> None:
    assert texts(index.search("reset", 2)) == [FAQ[0].fields["body"], FAQ[1].fields["body"]]


def test_nothing_matches_nothing(index: FtsIndex) -> None:
    for query in ("", "   ", "?!", '"', "xylophone", "\ud800", "a\x00b"):
        assert index.search(query, 3) == []
    assert index.search("order", 0) == []


@pytest.mark.parametrize(
    "query", ['"order', "order AND", "NOT order", "order*", "heading:order", "(order", "order NEAR(", "^order"]
)
def test_a_query_has_no_syntax(index: FtsIndex, query: str) -> None:
    assert FAQ[1].fields["body"] in texts(index.search(query, 6))


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=300))
def test_no_query_breaks_it(index: FtsIndex, query: str) -> None:
    assert len(index.search(query, 2)) <= 2


def test_very_common_words_do_not_decide(tmp_path: Path) -> None:
    many = [document(f"Please tell me about thing{n}", f"Thing{n} please tell me about please.") for n in range(30)]
    Indexes().build([*many, document("Opening hours", "We open at nine.")], tmp_path)
    index = Indexes().open(tmp_path)
    assert texts(index.search("please tell me about the opening", 1)) == ["We open at nine."]
    assert len(index.search("please tell me", 2)) == 2


def test_text_is_found_where_there_is_no_body(tmp_path: Path) -> None:
    plain = FAQ[0].model_copy(update={"fields": {"item": "bowl"}, "text": "item: bowl"})
    Indexes().build([plain], tmp_path)
    assert texts(Indexes().open(tmp_path).search("bowl", 1)) == ["item: bowl"]


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    Indexes().build(FAQ, tmp_path / "a")
    Indexes().build(reversed(FAQ), tmp_path / "b")
    Indexes().build(FAQ[1:], tmp_path / "c")
    a, b, c = ((tmp_path / name / "index.sqlite").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_an_index_of_nothing_finds_nothing(tmp_path: Path) -> None:
    Indexes().build([], tmp_path)
    assert Indexes().open(tmp_path).search("order", 1) == []


def test_threads_share_an_index(index: FtsIndex) -> None:
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(texts(index.search("order", 1)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[FAQ[1].fields["body"]]] * 8


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Indexes().open(tmp_path)
    (tmp_path / "index.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(Invalid, match="is no index"):
        Indexes().open(tmp_path)


def test_what_is_not_about_the_question_stays_out(tmp_path: Path) -> None:
    many = [
        document(f"Topic {word}", f"All about the {word} and nothing else.") for word in "abcdefghijklmnopqrstuvwxyz"
    ]
    Indexes().build([*many, document("Repairs", "We repair pans in the workshop.")], tmp_path)
    index = Indexes().open(tmp_path)
    assert texts(index.search("Do you repair pans?", 1)) == ["We repair pans in the workshop."]
    assert index.search("On which weekday does your travelling repair van stop in my village?", 1) == []


def test_a_hit_names_its_document(index: FtsIndex) -> None:
    assert index.search("password", 1) == [Hit(FAQ[0].fields["body"], FAQ[0].id)]


def test_an_index_of_before_documents_had_names_is_read(tmp_path: Path) -> None:
    Indexes().build(FAQ, tmp_path)
    file = tmp_path / "index.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("ALTER TABLE texts DROP COLUMN document")
        database.commit()
    assert Indexes().open(tmp_path).search("password", 1) == [Hit(FAQ[0].fields["body"], "")]
