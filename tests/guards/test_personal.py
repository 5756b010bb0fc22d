"""Personal data: what must be found, what must be left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.guards.personal import find, scrub

FOUND = [
    ("write to jane.doe+x@shop.example.com.", "write to <email>."),
    ("mail: müller@straße.example!", "mail: <email>!"),
    ("call 0800 555 0147 now", "call <phone> now"),
    ("ring +49 30 901820.", "ring <phone>."),
    ("ring +49 (0)30 123456-78", "ring <phone>"),
    ("(555) 234-5678", "<phone>"),
    ("555-234-5678", "<phone>"),
    ("030/1234567", "<phone>"),
    ("le 01.23.45.67.89 ou", "le <phone> ou"),
    ("phone: 07700900123", "phone: <phone>"),
    ("my card 4111 1111 1111 1111, please", "my card <card>, please"),
    ("5555-5555-5555-4444", "<card>"),
    ("378282246310005", "<card>"),
    ("from GB82 WEST 1234 5698 7654 32, do", "from <iban>, do"),
    ("DE89370400440532013000 OK", "<iban> OK"),
    ("de89 3704 0044 0532 0130 00 and", "<iban> and"),
    ("host 192.168.4.20 is down", "host <ip> is down"),
    ("10.0.0.1", "<ip>"),
    ("at 2001:db8::8a2e:370:7334", "at <ip>"),
    ("SSN 123-45-6789", "SSN <ssn>"),
    ("key AKIAQ3EGUVXT7ZB2M4NP", "key <secret>"),
    ("ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYabcd", "<secret>"),
    ("xoxb-123456789012-abcdef", "<secret>"),
    ("sk-" + "aB3dE5fG7hJ9kL1mN2pQ4rS6", "<secret>"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----\nend", "<secret>\nend"),
    ("order 12, call 0800 555 0147", "order 12, call <phone>"),
]

LEFT = [
    "4111 1111 1111 1112",
    "DE89 3704 0044 0532 0130 01",
    "version 10.2.3",
    "version 10.2.3.4",
    "v1.2.3.4",
    "8.1.6.1. aptitude is a tool",
    "see section 8.1.6.1",
    "127.0.0.1",
    "ISBN 978-3-16-148410-0",
    "0-306-40615-2",
    "order 0012345678",
    "ticket no. 0800 123 456",
    "tracking 00340434161094021501",
    "550e8400-e29b-41d4-a716-446655440000",
    "00:1B:44:11:3A:B7",
    "at 10:30:15",
    "01.02.2024 and 2024-01-15 10:30",
    "€1,299.00 or 12 345 678.90",
    "2.500.000 people",
    "000-12-3456",
    "900-12-3456",
    "std::vector<a::b>",
    "@home and a@b",
    "3.14159265358979",
    "Where is my order 2201?",
    "de 12.000.000 a 15.000.000 euros",
    "24.000.000 y 25.000.000",
    "the 8382123 of last year",
    "8382123 a year",
    "330 000 000 people",
    "312 500 000 Euro",
    "345 123 456",
    "05.06.24 12.30 Uhr",
    "20240131-1530",
    "202401311530",
    "20240131-1531",
    "202401311531",
    "1710000003",
    "4006381333931",
    "EAN 4006381333931",
    "EAN 6901234567892",
    "ce n'est pas celle de la photo. Le code 9784443864337",
    "Im Jahr 2023 12000 Besucher",
    "Im Sommer 2023 12000 Besucher",
    "Im Quartal 3 2024 Umsatz",
    "255.255.255.0",
    "A::B1",
    "+100 000 000 users",
    "001 002 003 004",
    "010 011 012 013",
]
TOLD = [
    ("personnummer 20240131-1531", "personnummer <national_id>"),
    ("personnummer 8112289874", "personnummer <national_id>"),
    ("personnummer 198112289874", "personnummer <national_id>"),
    ("call 312 500 000", "call <phone>"),
    ("call +48 500 600 000", "call <phone>"),
    ("call 0049171234567", "call <phone>"),
]
"""What looks like something else too is found after a word."""
KEPT = [
    ("19811228-9874", "<national_id>"),
    ("1234567T and 1234567 T", "<national_id> and <national_id>"),
    ("12.345.678 Z", "<national_id>"),
    ("12345678z", "<national_id>"),
    ("01 23 45 67 89", "<phone>"),
    ("345 123 4567", "<phone>"),
    ("+34 600 100 200", "<phone>"),
    ("001 555 234 5678", "<phone>"),
    ("00353 1 234 5678", "<phone>"),
    ("6011111111111117", "<card>"),
    ("Im Winkel 4, 12345 Berlin", "<address>"),
    ("fe80::1:2", "<ip>"),
    ("255.255.255.1", "<ip>"),
]
"""Near what is left alone, and found."""
DAYS = st.integers(0, 35 * 365 * 24 * 3600).map(lambda each: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=each))


@pytest.mark.parametrize(("text", "clean"), FOUND + TOLD + KEPT)
def test_personal_data_is_replaced_by_its_kind(text: str, clean: str) -> None:
    assert scrub(text)[0] == clean


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert scrub(text) == (text, {})


@given(
    DAYS,
    st.sampled_from(["%d.%m.%y %H.%M Uhr", "%d.%m.%Y %H.%M Uhr", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y-%m-%d %H.%M"]),
)
def test_no_day_and_time_is_personal_data(moment: datetime, form: str) -> None:
    assert find(moment.strftime(form)) == []


@given(DAYS)
def test_no_stamp_of_a_file_and_no_second_of_the_epoch_is_personal_data(moment: datetime) -> None:
    assert find(f"{moment:%Y%m%d-%H%M}") == find(f"{moment.timestamp():.0f}") == []


@given(st.from_regex(r"[0-9]{12}", fullmatch=True))
def test_no_number_of_an_article_is_a_card(body: str) -> None:
    check = -sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(body)) % 10
    assert "card" not in [each.kind for each in find(f"{body}{check}")]
    assert find(f"EAN {body}{check}") == []


@given(st.integers(1, 99), st.integers(0, 999), st.sampled_from(["a", "y", "e", "of", "in", "de"]))
def test_no_amount_before_a_short_word_is_personal_data(millions: int, thousands: int, word: str) -> None:
    for gap in ". ":
        assert find(f"{millions}{gap}{thousands:03}{gap}000 {word} more") == []
    assert find(f"{millions:02}{thousands:03}12 {word} more") == []


def test_findings_point_at_the_text() -> None:
    text = "a@b.example and 192.0.2.7 and a@b.example"
    findings = find(text)
    assert [text[one.start : one.end] for one in findings] == ["a@b.example", "192.0.2.7", "a@b.example"]
    assert [one.kind for one in findings] == ["email", "ip", "email"]
    assert scrub(text)[1] == {"email": 2, "ip": 1}


@given(st.text(alphabet="ab@.:-+() 0123456789DEé\n", max_size=80))
def test_scrubbing_twice_is_scrubbing_once(text: str) -> None:
    once = scrub(text)[0]
    assert scrub(once) == (once, {})


@given(st.text(max_size=200))
def test_findings_are_in_order_and_apart(text: str) -> None:
    ends = [0]
    for finding in find(text):
        assert ends[-1] <= finding.start < finding.end <= len(text)
        ends.append(finding.end)
