"""The step `semantic` in a turn, on a real encoder: what says the same in other words goes, other facts stay."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import turning

pytestmark = pytest.mark.slow

SAME = [
    ("How can I reset my password?", "How do I reset my password?"),
    ("The delivery takes three working days.", "Delivery takes three working days."),
]
LONG = [f"{'Long. ' * 300}one", f"{'Long. ' * 300}two", "長い" * 450, "長い" * 450 + "。"]
"""Of more characters than the step takes, and of more tokens than the model reads."""
OTHER = [
    "The delivery takes 4 working days.",
    "The delivery takes 5 working days.",
    "Our shop closes on public holidays.",
]


def test_one_of_two_that_say_the_same_stays(tmp_path: Path) -> None:
    project = turning.make(tmp_path / "shop", tiny=True)
    texts = [text for pair in SAME for text in pair] + OTHER + LONG
    (project / "data" / "notes.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    file = project / "noria.toml"
    table = '[engines.encoder]\nkind = "encoder"\nmodel = "all-minilm-l6-v2"\n'
    source = '[[sources]]\nname = "notes"\nkind = "jsonl"\npath = "data/notes.jsonl"\n'
    lines = [
        f'{line[:-1]}, "notes"]\nclean = [{{ step = "semantic", engine = "encoder", similarity = 0.9 }}]'
        if line.startswith("sources = ") else line
        for line in file.read_text().splitlines()
    ]  # fmt: skip
    file.write_text("\n".join(lines) + f"\n{table}{source}")
    told = turning.outputs(turning.run(project, "documents"))
    kind, name, digest = "documents", *told["documents"].removeprefix("documents:").split("@")
    rows = pq.read_table(project / "lake" / kind / name / digest / "documents.parquet").to_pylist()
    left = [row["text"].removeprefix("text: ") for row in rows if row["source"] == "notes"]
    assert len(left) == len(texts) - len(SAME)
    assert all(sum(text in left for text in pair) == 1 for pair in SAME)
    assert {*OTHER, *LONG} <= set(left)
