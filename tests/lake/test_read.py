"""A source as a whole: drift of its columns, its share of faults, large files, what is told."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_project import Project

from noria.errors import Invalid
from noria.lake import limited, parquet
from noria.lake.columns import holds, type_of, wider
from noria.lake.encoding import Recoder
from noria.lake.kept import identity
from noria.lake.parquet import Rows
from noria.names import digest_of
from noria.tables import DOCUMENTS

MAP = 'kind = "csv"\npath = "*.csv"\nmap = { question = "q", answer = "a" }\n'


def test_columns_and_their_types_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "id,price,day,on,zip,note\n1,2,2026-01-02,true,007,\n2,2.5,2026-01-02T03:04:05Z,,1,\n"
    )
    project = Project(tmp_path, 'kind = "csv"\npath = "*.csv"')
    project.run()
    assert project.told["columns"] == {
        "id": "integer",
        "price": "number",
        "day": "date",
        "on": "boolean",
        "zip": "text",
        "note": "empty",
    }


def test_columns_that_drift_from_the_map_are_an_error_with_both(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q,a,n\nWhy?,So.,1\n")
    project = Project(tmp_path, MAP)
    project.run()
    (tmp_path / "b.csv").write_text("question,a\nWho?,I.\n")
    with pytest.raises(Invalid) as caught:
        project.run()
    assert caught.value.fact == (
        "source 'data': there is no column 'q', but: question, a in 'b.csv'; its map needs: q, a; "
        "when it was read last there were: q (text), a (text), n (integer)"
    )
    assert caught.value.where == "noria.toml:15"


def test_columns_that_drift_from_those_declared_are_an_error_with_both(tmp_path: Path) -> None:
    declared = 'columns = { q = "text", a = "text", n = "integer" }'
    (tmp_path / "a.csv").write_text("q,a,n\nWhy?,So.,1\nWho?,I.,many\nHow?,Thus.,\n")
    project = Project(tmp_path, MAP + declared)
    tables = project.run()
    assert len(tables["documents"]) == 2
    assert [row["reason"] for row in tables["quarantine"]] == ["column 'n' is no integer: 'many'"]
    (tmp_path / "b.csv").write_text("q,a,n,m\nWho?,I.,2,3\n")
    with pytest.raises(Invalid) as caught:
        project.run()
    assert "declared are: q (text), a (text), n (integer)" in caught.value.fact
    assert "there are: q (text), a (text), n (integer), m (integer)" in caught.value.fact
    assert caught.value.where == "noria.toml:16"
    with pytest.raises(Invalid, match="columns lacks 'a', which map needs"):
        Project(tmp_path, MAP + 'columns = { q = "text" }').run()


def test_more_broken_rows_than_allowed_stop_the_cycle_and_name_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q,a\nWhy?,So.\nWho?\nWhen?,\nHow?,Thus.\n")
    (tmp_path / "b.csv").write_text("q,a\nWhere?\n")
    with pytest.raises(Invalid) as caught:
        Project(tmp_path, MAP + "faulty = 0.5").run()
    assert caught.value.fact == (
        "source 'data': 3 of 5 rows are broken, more than faulty = 0.5 allows; the first: "
        "a.csv, 13: the row has 1 values, the header has 2; b.csv, 4: the row has 1 values, the header has 2"
    )
    assert caught.value.where == "noria.toml:16"
    assert "'.noria/read/data/quarantine.parquet'" in caught.value.hint
    assert pq.read_table(tmp_path / ".noria/read/data/quarantine.parquet").num_rows == 3
    assert len(Project(tmp_path, MAP + "faulty = 0.6").run()["documents"]) == 2
    with pytest.raises(Invalid, match=r"more than faulty = 0\.1 allows"):
        Project(tmp_path, MAP, more="faulty = 0.1\n").run()


def test_more_broken_files_than_allowed_stop_the_cycle(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q,a\n" + "Why?,So.\n" * 9)
    (tmp_path / "b.csv").write_text("q,a\n" + "Why?,So.\n" * 900)
    with pytest.raises(
        Invalid, match=r"1 of 2 files are broken, more than faulty = 0\.2 allows; the first: b\.csv, 0: it has"
    ):
        Project(tmp_path, MAP + "faulty = 0.2\nlimits = { file_mb = 0.005 }").run()


def test_a_wrong_limit_is_explained(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="unknown key") as caught:
        Project(tmp_path, MAP + "limits = { second = 5 }").run()
    assert caught.value.hint == "did you mean 'seconds'?"


@pytest.mark.parametrize("kind", ["jsonl", "text"])
def test_large_files_are_cut_and_nothing_of_them_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    texts = [f"Row {n} {'ä' * (n % 50)}" for n in range(400)]
    lines = [json.dumps({"q": text}, ensure_ascii=False) + "\n" if kind == "jsonl" else text + "\n\n" for text in texts]
    data = "".join(lines).encode()
    (tmp_path / "x").write_bytes(data)
    project = Project(tmp_path, f'kind = "{kind}"\npath = "x"')
    whole = project.run()["documents"]
    assert len(whole) == 400
    file = limited.Input(str(tmp_path / "x"), kind, limited.Limits(1, 100, 1, 64, 2))
    monkeypatch.setattr(limited, "PIECE", 64)
    with file:
        pieces = list(file.pieces(Recoder(None, declaring=False)))
        digest = file.digest()
    assert len(pieces) > 100
    assert b"".join(piece for _, piece in pieces if isinstance(piece, bytes)) == data
    assert all(data[at:].startswith(piece) for at, piece in pieces if isinstance(piece, bytes))
    assert digest == whole[0]["digest"]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.text(max_size=20), st.integers(0, 5)), max_size=60), st.integers(1, 400))
def test_spilled_rows_are_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], held: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_BATCH", 4)
        patch.setattr(parquet, "GROUP_ROWS", 16)
        patch.setattr(parquet, "GROUP_BYTES", 120)
        for name, limit, order in (("a", 1 << 30, rows), ("b", held, rows), ("c", held, rows[::-1])):
            patch.setattr(parquet, "_HELD", limit)
            table = Rows(DOCUMENTS, folder / f"spill-{name}")
            for text, number in order:
                row = {"id": digest_of([text, number]), "source": "s", "text": text, "fields": "{}"}
                table.add({**row, "conversation": "c", "file": "f", "offset": number, "digest": "d"})
            table.write(folder / name)
            assert table.count == len(rows)
            assert not (folder / f"spill-{name}").exists()
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes() == (folder / "c").read_bytes()
    found = pq.read_table(folder / "a")
    assert sorted(found["text"].to_pylist()) == sorted(text for text, _ in rows)
    assert found["id"].to_pylist() == sorted(found["id"].to_pylist())


@given(st.text(max_size=12), st.text(max_size=12))
def test_a_wider_type_holds_both_values(one: str, other: str) -> None:
    kind = wider(type_of(one), type_of(other))
    for value in (one, other):
        assert not value.strip() or kind == "text" or holds(kind, value)


def test_ids_are_digests_of_source_text_and_number() -> None:
    assert f"{identity('s', 'text', 0):016x}" == digest_of(["s", "text", 0])


def test_progress_names_the_files(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("q,a\nWhy?,So.\n")
    project = Project(tmp_path, MAP)
    project.run()
    assert project.heard.notes == ["data: a.csv", "data: b.csv", ""]


def test_what_noria_keeps_is_no_source(tmp_path: Path) -> None:
    for folder in ("lake/dataset/x", "docs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "rows.jsonl").write_text('{"q": "a"}\n')
    (tmp_path / "docs" / "link.jsonl").symlink_to(tmp_path / "lake" / "dataset" / "x" / "rows.jsonl")
    for pattern in ("**/*.jsonl", "docs/rows.jsonl"):
        rows = Project(tmp_path, f'kind = "jsonl"\npath = "{pattern}"').run()["documents"]
        assert [row["file"] for row in rows] == ["docs/rows.jsonl"]
    with pytest.raises(Invalid, match="no file matches 'lake/") as caught:
        Project(tmp_path, 'kind = "jsonl"\npath = "lake/**/*.jsonl"').run()
    assert "what noria keeps" in caught.value.hint


def test_a_project_inside_a_lake_reads_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "a"}\n')
    more = '[runtime]\nlake = ".."\n'
    assert Project(tmp_path, 'kind = "jsonl"\npath = "*.jsonl"', more).run()["documents"]


def test_files_outside_the_project_keep_their_folders(tmp_path: Path) -> None:
    for folder in ("en", "de"):
        (tmp_path / "site" / folder).mkdir(parents=True)
        (tmp_path / "site" / folder / "index.html").write_text(f"<h1>Shop</h1><p>Shop in {folder}.</p>")
    (tmp_path / "shop").mkdir()
    project = Project(tmp_path / "shop", f'kind = "html"\npath = "{tmp_path}/site/**/*.html"')
    assert sorted(row["file"] for row in project.run()["documents"]) == ["de/index.html", "en/index.html"]
    (tmp_path / "site" / "en" / "index.html").write_text("<h1>Shop</h1><p>Another shop.</p>")
    project.run()
    assert project.told["files"] == {"new": 0, "changed": 1, "unchanged": 1, "deleted": 0}
