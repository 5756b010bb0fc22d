"""What changed between two versions: every row is accounted for, and sealed texts stay sealed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.datasets import diff
from noria.datasets.card import _size, _table
from noria.datasets.rows import write_examples
from noria.datasets.schema import EXAMPLES
from noria.types import Example, Message, digest_of

QUESTIONS = st.sampled_from(["When?", "Where?", "Who?", "Why?", "What?"])
ROWS = st.lists(
    st.tuples(QUESTIONS, st.sampled_from(["a", "b", "c"]), st.sampled_from([None, "near"])), max_size=12,
    unique_by=lambda row: row[:2],
)  # fmt: skip


def written(folder: Path, rows: list[tuple[str, str, str | None]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made = [
        Example(
            id=digest_of([question, answer]), origin="source:faq", slice="task", conversation="c",
            messages=(Message(role="user", content=question),), context=context, target=answer,
            split="test" if question == "Why?" else "train",
        )
        for question, answer, context in rows
    ]  # fmt: skip
    for side in ("train", "test"):
        write_examples([each for each in made if each.split == side], folder / f"{side}.parquet")
    return folder


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(ROWS, ROWS)
def test_every_row_is_accounted_for(
    tmp_path: Path, old: list[tuple[str, str, str | None]], new: list[tuple[str, str, str | None]]
) -> None:
    told: Any = diff.of_datasets(written(tmp_path / "old", old), written(tmp_path / "new", new), 99, sealed=False)
    added, removed, changed = (told[what]["rows"] for what in ("added", "removed", "changed"))
    assert (told["before"], told["after"]) == (len(old), len(new))
    assert told["after"] - told["before"] == added - removed
    both = {row[:2] for row in old} & {row[:2] for row in new}
    context = {row[:2]: row[2] for row in old}
    moved = [row for row in new if row[:2] in both and context[row[:2]] != row[2]]
    answered = len(new) - len(both) - added
    assert changed == answered + len(moved)
    assert told["moved"] == 0
    shown = [*told["added"]["samples"], *told["removed"]["samples"]]
    shown += [row for pair in told["changed"]["samples"] for row in pair.values()]
    assert all(row["split"] == "test" or "question" in row for row in shown)
    assert "Why?" not in json.dumps(shown)
    if old == new:
        assert (added, removed, changed) == (0, 0, 0)


def test_a_row_on_another_side_is_told(tmp_path: Path) -> None:
    old, new = written(tmp_path / "old", [("When?", "a", None)]), written(tmp_path / "new", [])
    (old / "train.parquet").rename(new / "test.parquet")
    table = pq.read_table(new / "test.parquet")
    place = table.schema.get_field_index("split")
    pq.write_table(table.set_column(place, "split", pa.array(["test"])), new / "test.parquet")
    pq.write_table(table, old / "train.parquet")
    assert pq.read_schema(new / "train.parquet") == EXAMPLES
    assert diff.of_datasets(old, new, 1, sealed=False)["moved"] == 1


def test_documents_change_by_cleaning_and_by_their_source(tmp_path: Path) -> None:
    def row(identity: str, text: str, **fields: str) -> dict[str, Any]:
        return {"id": identity, "source": "faq", "file": "faq.csv", "text": text, "fields": json.dumps(fields)}

    for name, rows in {
        "old": [row("1", "dirty"), row("2", "x", q="When?"), row("3", "y", q="Where?"), row("5", "no head")],
        "new": [row("1", "clean"), row("4", "z", q="When?"), row("6", "no head either"), row("7", "w", q="Who?")],
    }.items():
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / "documents.parquet")
    told: Any = diff.of_documents(tmp_path / "old", tmp_path / "new", 9, {"faq": "q"})
    pairs = {(pair["old"]["text"], pair["new"]["text"]) for pair in told["changed"]["samples"]}
    assert pairs == {("dirty", "clean"), ("x", "z")}
    assert {each["id"] for each in told["added"]["samples"]} == {"6", "7"}
    assert {each["id"] for each in told["removed"]["samples"]} == {"3", "5"}


@pytest.mark.parametrize(
    ("rows", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (123_456, "100K<n<1M"), (2 * 10**9, "n>1B")],
)
def test_sizes_have_the_hub_s_names(rows: int, name: str) -> None:
    assert _size(rows) == name


def test_no_text_breaks_a_table() -> None:
    assert _table(["a"], [["x | y\n\\z"]]).splitlines()[2] == "| x \\| y \\\\z |"
    assert _table(["a"], []) == "None.\n"
