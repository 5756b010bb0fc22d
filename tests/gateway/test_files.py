"""The Files API as the official client sees it, and the form that it uploads."""

from __future__ import annotations

import io
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import httpx
import openai
import pytest
from gateway_fakes import KEY, FakeEngine, Plane, wait_for
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import Invalid
from noria.gateway.batch.files import STALE_SECONDS, FileStore, new_file
from noria.gateway.batch.form import Form, Part

pytestmark = pytest.mark.slow

TYPE = b"multipart/form-data; boundary=bound"


def test_the_official_client_stores_lists_reads_and_deletes_files(client: openai.OpenAI, plane: Plane) -> None:
    content = bytes(range(256)) * 3000
    made = client.files.create(file=('dir/büro "1".jsonl', io.BytesIO(content)), purpose="user_data")
    assert (made.bytes, made.filename, made.purpose, made.object) == (
        len(content), 'büro "1".jsonl', "user_data", "file",
    )  # fmt: skip
    more = [client.files.create(file=b"x", purpose="batch").id for _ in range(3)]
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).content == content
    assert [each.id for each in client.files.list(limit=2)] == [*more[::-1], made.id]
    assert [each.id for each in client.files.list(order="asc", purpose="batch", limit=1)] == more
    stored = [path for path in (plane.state / "files").rglob("*") if path.is_file()]
    assert len(stored) == 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in stored} == {0o600}
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(made.id)
    assert len([path for path in (plane.state / "files").rglob("*") if path.is_file()]) == 6


def uploads(plane: Plane) -> list[Path]:
    return list((plane.state / "files").rglob(".upload*"))


def test_a_large_file_passes_and_a_larger_one_is_refused(
    engine: FakeEngine, plane: Plane, client: openai.OpenAI
) -> None:
    plane.rules = {"file_bytes": 30_000_000}
    plane.publish(engine.url)
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == plane.version)
    content = bytes(range(256)) * 117_000
    made = client.files.create(file=("large.bin", content), purpose="user_data")
    assert client.files.content(made.id).content == content
    for number in range(2):
        with pytest.raises(openai.APIStatusError) as refused:
            client.files.create(file=("larger.bin", content + b"x" * (50_000_000 + number)), purpose="user_data")
        assert refused.value.status_code == 413

    def endless() -> Iterator[bytes]:
        yield b'--bound\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(100):
            yield content[:1_000_000]

    with plane.client() as http:
        got = http.post("/v1/files", content=endless(), headers={"content-type": TYPE.decode()})
    assert got.status_code == 413
    assert uploads(plane) == []
    assert [each.id for each in client.files.list()] == [made.id]


def test_an_upload_that_breaks_off_leaves_nothing(plane: Plane) -> None:
    host, port = plane.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/files HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ncontent-length: 9000000\r\n"
        part = b'--bound\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
        connection.sendall(head.encode() + b"content-type: " + TYPE + b"\r\n\r\n" + part + b"x" * 3_000_000)
        wait_for(lambda: uploads(plane))
    wait_for(lambda: not uploads(plane))
    assert httpx.get(f"{plane.url}/health").status_code == 200


def test_what_has_expired_or_was_cut_off_is_swept_away(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    with closing(store.begin("k1", "file-" + "0" * 32)) as upload:
        upload.write(b"x")
        upload.keep(new_file(1000, "file-" + "0" * 32, "a", "batch", 1, expires=5000))
    with closing(store.begin("k1", "file-" + "1" * 32)):
        store.sweep(4999)
        assert len(list((tmp_path / "k1").iterdir())) == 3
        store.sweep(time.time() + STALE_SECONDS + 60)
        assert list((tmp_path / "k1").iterdir()) == []


def parsed(pieces: list[bytes]) -> list[tuple[Part, bytes]]:
    form = Form(TYPE)
    found: list[tuple[Part, bytes]] = []
    for piece in pieces:
        for event in form.feed(piece):
            if isinstance(event, Part):
                found.append((event, b""))
            else:
                found[-1] = found[-1][0], found[-1][1] + event
    form.close()
    return found


def cut(body: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(each % (len(body) + 1) for each in places), len(body)]
    return [body[start:end] for start, end in pairwise(ends)]


VALUES = st.lists(st.binary(max_size=60) | st.sampled_from([b"\r\n--boun", b"\r\n--", b"--bound", b"\r"]), max_size=4)


@given(VALUES, st.lists(st.integers(0, 10_000), max_size=12))
def test_a_form_is_read_alike_however_it_is_cut(values: list[bytes], places: list[int]) -> None:
    values = [each for each in values if b"\r\n--bound" not in b"\r\n" + each + b"\r\n--"]
    body = b"".join(
        b'--bound\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n%b\r\n' % (number, value)
        for number, value in enumerate(values)
    )
    found = parsed(cut(body + b"--bound--\r\n", places))
    assert found == [(Part(f"f{number}"), value) for number, value in enumerate(values)]


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"--bound", b"\r\n", b"\r\n\r\n", b"--", b"name="]), max_size=20)
)
def test_bytes_that_are_no_form_are_refused(pieces: list[bytes]) -> None:
    try:
        parsed(pieces)
    except Invalid:
        return
    assert b"--bound" in b"".join(pieces)
