"""Reader of XML: records, their columns, and what is refused."""

from __future__ import annotations

import pytest
from files import XML

from noria.lake.rows import Fault, Row, Skip
from noria.lake.xml import xml_rows


def test_records_are_found_and_flattened() -> None:
    items = list(xml_rows(XML))
    rows = [item for item in items if isinstance(item, Row)]
    assert [row.fields for row in rows] == [
        {
            "id": "1", "name": "Löffel & Co", "price.currency": "EUR", "price": "3.50", "tag": '["x", "y"]',
            "maker.town": "Köln", "note": "Very nice one",
        },
        {"id": "2", "name": "Bol"},
    ]  # fmt: skip
    assert all(XML[row.offset :].startswith(b"<item id=") for row in rows)
    assert Skip("element with text outside of the records 'item'") in items


@pytest.mark.parametrize(
    ("data", "record", "rows"),
    [
        (b"<orders><order><id>1</id></order></orders>", None, [{"id": "1"}]),
        (b"<order n='1'><id>1</id><to>x</to></order>", None, [{"n": "1", "id": "1", "to": "x"}]),
        (b"<a><x/><y><z>1</z><z>2</z></y></a>", None, [{"z": "1"}, {"z": "2"}]),
        (b"<feed><tag>a</tag><tag>b</tag><e><i>1</i></e></feed>", "e", [{"i": "1"}]),
        (b"<f><e><i>1</i><i>2</i></e><e><i>3</i></e></f>", "i", [{"i": "1"}, {"i": "2"}, {"i": "3"}]),
        (b"<l><r><o><c>1</c></o><o><c>2</c></o></r><r/></l>", None, [{"o": '[{"c": "1"}, {"c": "2"}]'}, {"r": ""}]),
        (b"<l><r id='1'><id>2</id></r><r/></l>", None, [{"@id": "1", "id": "2"}, {"r": ""}]),
    ],
)
def test_what_a_record_is(data: bytes, record: str | None, rows: list[dict[str, str]]) -> None:
    assert [item.fields for item in xml_rows(data, record) if isinstance(item, Row)] == rows


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b'<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">', "a"),
        (b'<!ENTITY secret SYSTEM "file:///etc/hostname">', "secret"),
        (b'<!ENTITY % far SYSTEM "http://127.0.0.1:9/x.dtd"> %far;', "far"),
    ],
)
def test_entities_are_refused_with_the_whole_file(head: bytes, name: str) -> None:
    (fault,) = xml_rows(b"<!DOCTYPE l [" + head + b"]><l><r>1</r><r>2</r></l>")
    assert isinstance(fault, Fault)
    assert fault.reason == f"refused: it declares the entity '{name}'"


def test_rows_before_the_damage_are_kept() -> None:
    data = b"<l><r>1</r><r>2</r><r>3</l>"
    *rows, fault = xml_rows(data)
    assert [row.fields for row in rows if isinstance(row, Row)] == [{"r": "1"}, {"r": "2"}]
    assert isinstance(fault, Fault)
    assert fault.offset == data.index(b"l>", 20)
    assert "mismatched tag" in fault.reason


def test_depth_and_missing_records_are_faults() -> None:
    (deep,) = xml_rows(b"<a>" * 5000)
    assert isinstance(deep, Fault)
    assert "nested more than 100 deep" in deep.reason
    assert Fault(0, "there is no element 'x'") in list(xml_rows(b"<a><b/></a>", "x"))


@pytest.mark.slow
def test_large_files_come_in_pieces_with_right_places() -> None:
    data = b"<l>" + b"".join(f"<r>Größe {n}</r>".encode() for n in range(20_000)) + b"</l>"
    rows = [item for item in xml_rows(data) if isinstance(item, Row)]
    assert len(rows) == 20_000
    assert data[rows[-1].offset :] == "<r>Größe 19999</r></l>".encode()
