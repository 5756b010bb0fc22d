"""Files that are meant to take the cycle down: each ends in the quarantine, and the others are read."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import exploding
import psutil
import pytest
from small_project import Project

from noria.lake import parsers
from noria.lake.rows import Item

LIMITS = "limits = { file_mb = 24, row_chars = 2000, seconds = 5, memory_mb = 200, ratio = 20 }"
SOURCE = 'kind = "text"\npath = "data/*"\n' + LIMITS


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A source with a good file before and one after whatever a test adds as `m…`."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("First.")
    (tmp_path / "data" / "z.txt").write_text("Last.")
    return Project(tmp_path, SOURCE)


def faults(tables: dict[str, list[dict[str, Any]]]) -> list[tuple[str, int, str]]:
    return [(row["file"], row["offset"], row["reason"]) for row in tables["quarantine"]]


def texts(tables: dict[str, list[dict[str, Any]]]) -> set[str]:
    return {row["fields"] for row in tables["documents"]}


GOOD = {'{"text": "First."}', '{"text": "Last."}'}


@pytest.mark.parametrize(
    ("parser", "word", "reason"),
    [
        (exploding.segfaults, b"segfault", "its reader crashed: SIGSEGV"),
        (exploding.is_killed, b"killed", "its reader crashed: SIGKILL"),
        (exploding.exits, b"exit", "its reader crashed: status 3"),
        (exploding.eats, b"eat", "its reader needs more than memory_mb = 200"),
        (exploding.raises, b"raise", r"its reader failed: KeyError: 'not what it seems \udc80'"),
        (exploding.recurses, b"recurse", "its reader failed: RecursionError: maximum recursion depth exceeded"),
        (exploding.multiplies, b"multiply", "its rows take more than ratio = 20 times its size"),
    ],
)
def test_a_parser_that_explodes_costs_its_file_only(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    parser: Callable[[bytes], Iterator[Item]],
    word: bytes,
    reason: str,
) -> None:
    monkeypatch.setitem(parsers.PARSERS, "text", parser)
    (project.root / "data" / "m.txt").write_bytes(word)
    tables = project.run()
    assert texts(tables) == GOOD
    ((file, offset, told),) = faults(tables)
    assert (file, told[: len(reason)]) == ("data/m.txt", reason)
    assert offset in (0, 7)


@pytest.mark.parametrize("parser", [exploding.hangs, exploding.spins])
def test_a_parser_that_hangs_is_ended(
    project: Project, monkeypatch: pytest.MonkeyPatch, parser: Callable[[bytes], Iterator[Item]]
) -> None:
    monkeypatch.setitem(parsers.PARSERS, "text", parser)
    (project.root / "data" / "m.txt").write_text("hang")
    (project.root / "noria.toml").write_text(
        (project.root / "noria.toml").read_text().replace("seconds = 5", "seconds = 1")
    )
    tables = project.run()
    assert texts(tables) == GOOD
    assert faults(tables) == [("data/m.txt", 0, "reading it took longer than seconds = 1 allow")]


@pytest.mark.slow
@pytest.mark.parametrize(("parser", "word"), [(exploding.shuts_up, "shut"), (exploding.babbles, "babble")])
def test_a_process_that_makes_no_sense_is_ended(
    project: Project, monkeypatch: pytest.MonkeyPatch, parser: Callable[[bytes], Iterator[Item]], word: str
) -> None:
    monkeypatch.setitem(parsers.PARSERS, "text", parser)
    file = project.root / "noria.toml"
    file.write_text(file.read_text().replace("seconds = 5", "seconds = 500"))
    (project.root / "data" / "m.txt").write_text(word)
    tables = project.run()
    assert texts(tables) == GOOD
    assert faults(tables) == [("data/m.txt", 0, "its reader crashed: SIGKILL")]


def test_what_a_parser_prints_is_not_taken_for_rows(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parsers.PARSERS, "text", exploding.prints)
    assert texts(project.run()) == GOOD


def test_a_file_does_not_pay_for_the_one_before(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parsers.PARSERS, "text", exploding.is_once_unlucky)
    tables = project.run()
    assert texts(tables) == GOOD
    assert faults(tables) == []


def test_a_file_that_is_too_large_is_not_opened(project: Project) -> None:
    with (project.root / "data" / "m.txt").open("wb") as file:
        file.truncate(3 << 30)
    tables = project.run()
    assert texts(tables) == GOOD
    assert faults(tables) == [("data/m.txt", 0, "it has 3,072.0 MiB, more than file_mb = 24")]


def test_a_gzip_bomb(project: Project) -> None:
    settings = project.root / "noria.toml"
    settings.write_text(settings.read_text().replace("seconds = 5", "seconds = 500"))
    with gzip.open(project.root / "data" / "m.txt.gz", "wb") as file:
        for _ in range(20):
            file.write(bytes(1 << 20))
    tables = project.run()
    assert texts(tables) == GOOD
    assert faults(tables) == [("data/m.txt.gz", 0, "it unpacks to more than ratio = 20 times its size")]


@pytest.mark.slow
def test_a_gzip_file_with_much_in_it_is_cut_off(project: Project) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        for _ in range(26):
            file.write(os.urandom(1 << 16) + bytes((1 << 20) - (1 << 16)))
    (project.root / "data" / "m.gz").write_bytes(packed.getvalue())
    tables = project.run()
    assert texts(tables) == GOOD
    assert faults(tables) == [("data/m.gz", 0, "it unpacks to more than file_mb = 24 MiB")]


def test_a_torn_gzip_file(project: Project) -> None:
    whole = gzip.compress(os.urandom(100_000))
    (project.root / "data" / "m.gz").write_bytes(whole[:50_000])
    (project.root / "data" / "n.gz").write_bytes(whole[:2] + b"\x00" + whole[3:])
    tables = project.run()
    assert texts(tables) == GOOD
    assert [(file, reason[:21]) for file, _, reason in faults(tables)] == [
        ("data/m.gz", "it cannot be unpacked"),
        ("data/n.gz", "it cannot be unpacked"),
    ]


def test_a_zip_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parsers.PARSERS, "json", exploding.raises)
    with zipfile.ZipFile(tmp_path / "m.x", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(20 << 20))
    (tmp_path / "a.x").write_text("Good.")
    tables = Project(tmp_path, f'kind = "json"\npath = "*.x"\n{LIMITS}').run()
    assert texts(tables) == {'{"text": "Good."}'}
    assert faults(tables) == [("m.x", 0, "it unpacks to more than ratio = 20 times its size")]


def test_a_giant_line_costs_itself_only(tmp_path: Path) -> None:
    good, long = b'{"q": "one"}\n', b'{"q": "' + b"x" * 3000 + b'"}\n'
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(good + long)
        begin = file.tell()
        # A hole: the file says 20 MiB and takes none of the disk.
        file.seek(20 << 20)
        file.write(b"\n" + good.replace(b"one", b"two"))
    tables = Project(tmp_path, f'kind = "jsonl"\npath = "*"\n{LIMITS}'.replace('"*"', '"*.jsonl"')).run()
    assert texts(tables) == {'{"q": "one"}', '{"q": "two"}'}
    reason = "the row has more than row_chars = 2000 characters"
    assert faults(tables) == [("a.jsonl", len(good), reason), ("a.jsonl", begin, reason)]


@pytest.mark.slow
def test_a_yaml_bomb_of_aliases(tmp_path: Path) -> None:
    lines = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "m.yaml").write_text("\n".join(lines))
    (tmp_path / "a.yaml").write_text("- {q: good}")
    tables = Project(tmp_path, f'kind = "yaml"\npath = "*.yaml"\n{LIMITS}').run()
    assert texts(tables) == {'{"q": "good"}'}
    ((file, _, reason),) = faults(tables)
    assert file == "m.yaml"
    assert "memory_mb" in reason or "seconds" in reason


def test_xml_bombs_of_entities(tmp_path: Path) -> None:
    lines = ['<!ENTITY a0 "lol">', *(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))]
    (tmp_path / "m.xml").write_text(f"<!DOCTYPE r [{''.join(lines)}]><r><q>&a11;</q><q>&a11;</q></r>")
    (tmp_path / "n.xml").write_text(f'<!DOCTYPE r [<!ENTITY a "{"x" * 100_000}">]><r>{"<q>&a;</q>" * 10_000}</r>')
    (tmp_path / "o.xml").write_text('<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><r><q>&a;</q><q>&a;</q></r>')
    (tmp_path / "a.xml").write_text("<r><row><q>good</q></row><row><q>too</q></row></r>")
    tables = Project(tmp_path, f'kind = "xml"\npath = "*.xml"\n{LIMITS}').run()
    assert texts(tables) == {'{"q": "good"}', '{"q": "too"}'}
    assert {row["file"] for row in tables["quarantine"]} == {"m.xml", "n.xml", "o.xml"}


def test_links_out_of_the_folder_are_refused(project: Project) -> None:
    data, far = project.root / "data", project.root / "far"
    far.mkdir()
    (far / "secret.txt").write_text("Secret.")
    (data / "m.txt").symlink_to(far / "secret.txt")
    (data / "n").symlink_to(far)
    (data / "o.txt").symlink_to("nowhere")
    (data / "p.txt").symlink_to("z.txt")
    (data / "q").symlink_to(".")
    tables = project.run()
    assert texts(tables) == GOOD
    assert faults(tables) == [
        ("data/m.txt", 0, "it is a link out of the folder 'data'"),
        ("data/n", 0, "it is a link out of the folder 'data'"),
        ("data/o.txt", 0, "it cannot be read: No such file or directory"),
        ("data/q", 0, "it is a link to a folder"),
    ]
    assert len(tables["documents"]) == 3


def test_linked_folders_are_not_walked(project: Project) -> None:
    deep = project.root / "data" / "deep"
    deep.mkdir()
    (deep / "in.txt").write_text("Deep.")
    for name in ("one", "two"):
        (deep / name).symlink_to(project.root / "data")
    file = project.root / "noria.toml"
    file.write_text(file.read_text().replace("data/*", "data/**/*.txt"))
    tables = project.run()
    assert texts(tables) == {*GOOD, '{"text": "Deep."}'}
    assert faults(tables) == []


def test_pipes_and_unreadable_files(project: Project) -> None:
    os.mkfifo(project.root / "data" / "m.txt")
    assert faults(project.run()) == [("data/m.txt", 0, "it is not a regular file")]


@pytest.mark.slow
def test_ever_so_many_broken_rows_give_the_file_up(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b"x\n" * 100_001)
    (tmp_path / "a.jsonl").write_bytes(b'{"q": "good"}')
    tables = Project(tmp_path, f'kind = "jsonl"\npath = "*.jsonl"\n{LIMITS}').run()
    assert texts(tables) == {'{"q": "good"}'}
    assert faults(tables) == [("m.jsonl", 200_000, "more than 100,000 of its rows are broken")]


PARENT = """
import sys
from pathlib import Path
import exploding
from small_project import Project
from noria.lake import parsers
parsers.PARSERS["text"] = exploding.tells
Project(Path(sys.argv[1]), sys.argv[2]).run()
"""


@pytest.mark.slow
def test_the_reader_does_not_outlive_a_killed_cycle(project: Project) -> None:
    (project.root / "data" / "m.txt").write_text("hang")
    code = f"import sys; sys.path[:] = {sys.path}{PARENT}"
    source = SOURCE.replace("seconds = 5", "seconds = 500")
    parent = subprocess.Popen([sys.executable, "-c", code, str(project.root), source], cwd=project.root)
    note = project.root / "data" / "pid"
    while not (note.is_file() and note.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    child = psutil.Process(int(note.read_text()))
    parent.kill()
    parent.wait()
    child.wait(30)


@pytest.mark.slow
def test_long_names_in_other_scripts_do_not_stop_the_reader(tmp_path: Path) -> None:
    """Orders that fill a pipe, to a process whose answers fill the other one: each would wait for the other."""
    folder = tmp_path.joinpath(*["订" * 80] * 8)
    folder.mkdir(parents=True)
    first = folder / "0.csv"
    first.write_text("q,a\n" + "".join(f"Is {number} a number?,Yes it is.\n" for number in range(4000)))
    for number in range(1, 32):
        os.link(first, folder / f"{number}.csv")
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path; from small_project import Project\n"
        f"""print(len(Project(Path({str(tmp_path)!r}), 'kind = "csv"\\npath = "**/*.csv"').run()["documents"]))\n"""
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == str(32 * 4000), done.stderr
