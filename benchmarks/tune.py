"""Twelve trials against the recipe of `noria init` on the help desk: the loss of rows that nobody learned.

The model is SmolLM2-135M, of which fewer layers than there are learn, so that it ends within minutes.
`--trials 4 --rows 24` is a quick look. Writes benchmarks/results/tune.json and the study's pictures.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "tune.json"
CHATS = Path(__file__).parent.parent / "examples" / "helpdesk" / "data" / "chats.jsonl"
TOML = """
[project]
name = "tune"
[engines.local]
kind = "llamacpp"
model = "smollm2-135m-instruct"
[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"
map = { question = "question", answer = "answer" }
[tasks.helpdesk]
sources = ["faq"]
base = "smollm2-135m-instruct"
engine = "local"
system = "You answer customers' questions."
answer_chars = 160
recipe = { kind = "lora", rank = 16, layers = LAYERS, epochs = 2 }
[tasks.helpdesk.tune]
sampler = "SAMPLER"
trials = TRIALS
validation = 0.25
[tasks.helpdesk.tune.space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
epochs = { low = 1, high = 4, step = 1 }
batch = [2, 4, 8]
rank = [4, 8, 16]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--layers", type=int, default=4, help="the uppermost layers that are adapted")
    parser.add_argument("--sampler", default="tpe")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="noria-bench-tune.") as folder:
        told = searched(Path(folder), options)
    RESULT.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


def rows(count: int) -> list[tuple[str, str]]:
    """Questions and answers of the help desk, as many, spread over its chats."""
    chats = [json.loads(line) for line in CHATS.read_text().splitlines()]
    return [(each["question"], each["answer"]) for each in chats[:: max(1, len(chats) // count)]][:count]


def searched(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run `noria tune` on a project of its own."""
    toml = TOML.replace("TRIALS", str(options.trials)).replace("LAYERS", str(options.layers))
    (root / "noria.toml").write_text(toml.replace("SAMPLER", options.sampler))
    with (root / "faq.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("question", "answer"))
        writer.writerows(rows(options.rows))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "noria", "tune", "--json", "--project", str(root)]
    made = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    kind, _, rest = made["output"].partition(":")
    name, _, digest = rest.partition("@")
    for picture in ("history", "slices"):
        shutil.copy(root / "lake" / kind / name / digest / f"{picture}.png", RESULT.with_name(f"tune-{picture}.png"))
    values = [each["value"] for each in made["trials"]]
    return {
        "sampler": options.sampler, "trials": len(values), "rows": options.rows, "layers": options.layers,
        "cores": os.cpu_count(), "cpu_s": round(cpu, 1), "cpu_s_per_trial": round(cpu / len(values), 1),
        "loss_of_the_recipe": values[0], "loss_of_the_winner": made["best"]["value"],
        "winner": made["best"]["values"], "trial": made["best"]["number"], "complete": made["complete"],
        "pruned": made["pruned"], "failed": made["failed"], "importance": made["importance"],
        "values": values,
    }  # fmt: skip


if __name__ == "__main__":
    main()
