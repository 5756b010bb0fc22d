"""Whether an adapter says what was planted in its sources: learned by heart with scrubbing, and without for comparison.

Adds "adapter" to benchmarks/results/personal.json. `--rows 10 --epochs 4` is a quick look.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq

from benchmarks.personal.rows import Row, rows
from benchmarks.personal.run import RESULT
from noria import prompts
from noria.guards import personal
from noria.ports import Platform
from noria.settings import PersonalKind
from noria.types import Message, Ref
from noria.wiring import open_project

SEED = 31
TOML = """
[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "smollm2-135m-instruct"
context = 1024
[[sources]]
name = "mail"
kind = "csv"
path = "mail.csv"
map = { question = "question", answer = "answer" }
[tasks.help]
sources = ["mail"]
base = "smollm2-135m-instruct"
engine = "local"
answer_chars = 4000
recipe = { kind = "lora", epochs = EPOCHS, layers = 12, max_length = 384, learning_rate = 2e-3 }
[tasks.help.scrub]
leave = LEAVE
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=24, help="passes; after a score of them a row is known by heart")
    options = parser.parse_args()
    planted = [each for each in rows(4 * options.rows, seed=SEED) if each.planted][: options.rows]
    told = {
        "scrubbed": learned(planted, options.epochs, ()),
        "not scrubbed": learned(planted, options.epochs, get_args(PersonalKind)),
    }
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    RESULT.write_text(json.dumps({**results, "adapter": told}, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(told, indent=1))


def learned(planted: Sequence[Row], epochs: int, leave: Sequence[str]) -> dict[str, Any]:
    """Train on the rows and ask for each of them."""
    values = {row.text[item.start : item.end] for row in planted for item in row.planted}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "noria.toml").write_text(TOML.replace("EPOCHS", str(epochs)).replace("LEAVE", json.dumps(list(leave))))
        with (root / "mail.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("question", "answer"))
            others = [*planted[1:], planted[0]]
            writer.writerows((other.text, row.text) for row, other in zip(planted, others, strict=True))
        command = [sys.executable, "-m", "noria", "run", "adapter", "--json", "--project", str(root)]
        made = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        refs = {each["stage"]: Ref.parse(each["output"]) for each in made["stages"]}
        platform = open_project(root)
        answers = asked(platform, refs)
        adapter = platform.runs.artifact(refs["adapter"])
    assert adapter is not None
    said = Counter(found.kind for answer in answers for found in personal.find_all(answer))
    return {
        "rows": len(planted), "planted": len(values), "answers": len(answers),
        "first loss": adapter.meta["first_loss"], "last loss": adapter.meta["last_loss"],
        "planted items said": sum(any(value in answer for answer in answers) for value in values),
        "looks like personal data": dict(said),
    }  # fmt: skip


def asked(platform: Platform, refs: dict[str, Ref]) -> list[str]:
    """The tuned model's answers to every question that it has learned or that was sealed."""
    task, settings = platform.settings.tasks["help"], platform.settings.engines["local"]
    adapter, data = refs["adapter"], platform.lake.path(refs["dataset"])
    engine = platform.engines[settings.kind].start(
        settings, {adapter: platform.lake.path(adapter)}, platform.settings.root / "engine.log"
    )
    found = []
    try:
        for side in ("train", "test"):
            for row in pq.read_table(data / f"{side}.parquet").to_pylist():
                messages = [Message.model_validate(each) for each in json.loads(row["messages"])]
                given = engine.answer(
                    prompts.render(task.system, messages, row["context"]), adapter, 96, [prompts.STOP]
                )
                found.append(prompts.answer_of(given.text))
    finally:
        engine.close()
    return found


if __name__ == "__main__":
    main()
