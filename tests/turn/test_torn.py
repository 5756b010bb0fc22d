"""kill -9 of the data stages at random moments: every table that stands in the lake is whole, at all times."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import turning

from noria.backends import scratch
from noria.backends.folder_lake import content_digest
from noria.settings import child_environment

pytestmark = pytest.mark.slow

ROWS = 2000
MORE = 150
STAGES = ["sources", "documents", "dataset", "features"]
WORDS = [f"{first}{second}" for first in "bdfgklmnprstvz" for second in ("ado", "ilu", "era", "omi", "unta", "esk")]


def fill(project: Path, rows: int) -> None:
    """The same first rows whatever their number, every question and answer another."""
    choose = random.Random(5)
    with (project / "data" / "faq.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["question", "answer"])
        for number in range(rows):
            out.writerow([f"{' '.join(choose.choices(WORDS, k=9))} {number}?", " ".join(choose.choices(WORDS, k=14))])


def whole(lake: Path, known: set[Path]) -> None:
    """Every artifact is named by its content and every table opens; `known` grows by what was looked at."""
    for folder in lake.glob("[!.]*/*/*"):
        if folder.is_dir() and folder not in known and folder.parts[-3] in STAGES:
            assert content_digest(folder) == folder.name
            for table in folder.rglob("*.parquet"):
                assert pq.read_table(table, partitioning=None).num_rows == pq.read_metadata(table).num_rows
            known.add(folder)


def started(project: Path, temporary: Path) -> subprocess.Popen[bytes]:
    with (project / "run.log").open("ab") as log:
        command = [*turning.NORIA, "run", "features", "--json", "--project", str(project)]
        env = child_environment(TMPDIR=str(temporary))
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)


def test_no_kill_tears_a_table(tmp_path: Path, kills: int) -> None:
    calm, project, temporary = tmp_path / "calm", tmp_path / "killed", tmp_path / "tmp"
    temporary.mkdir()
    for folder in (calm, project):
        turning.make(folder, tiny=True)
        fill(folder, ROWS)
    began = time.monotonic()
    wanted = [turning.outputs(turning.run(calm, "features"))]
    longest = time.monotonic() - began
    lake, rows, killed, choose = project / "lake", ROWS, 0, random.Random(11)
    made: list[dict[str, str]] = []
    while killed < kills:
        known: set[Path] = set()
        process, begun = started(project, temporary), time.monotonic()
        until = begun + choose.uniform(0.5, min(longest, 15.0))
        while time.monotonic() < until and process.poll() is None:
            whole(lake, known)
            time.sleep(0.02)
        if process.poll() is None:
            process.kill()
            killed += 1
            process.wait()
            whole(lake, set())
            if made:
                shown = json.loads(turning.noria("data", "show", "latest", "--json", "--project", str(project)).stdout)
                assert shown["rows"] >= ROWS / 2
            continue
        assert process.returncode == 0, (project / "run.log").read_text()[-2000:]
        longest = time.monotonic() - begun
        made.append(turning.outputs(turning.run(project, "features")))
        rows += MORE
        fill(project, rows)
    made.append(turning.outputs(turning.run(project, "features")))
    whole(lake, set())
    assert [path for path in (lake / ".scratch").iterdir() if path.is_dir()] == []
    # The folder of a worker that died with its run goes when the next worker makes its own.
    with scratch.temporary("noria-worker.", temporary) as folder:
        assert [path for path in temporary.glob("noria-*") if path != folder] == []
    for number in range(1, len(made)):
        fill(calm, ROWS + number * MORE)
        wanted.append(turning.outputs(turning.run(calm, "features")))
    assert made == wanted


def test_a_second_run_of_a_task_is_told_of_the_first(tmp_path: Path) -> None:
    project = turning.make(tmp_path / "shop", tiny=True)
    fill(project, ROWS)
    first = started(project, tmp_path)
    try:
        lock = project / ".noria" / "locks" / "cycle-helpdesk.lock"
        while not lock.is_file() or not list(project.glob("lake/.scratch/*")):
            assert first.poll() is None
            time.sleep(0.02)
        second = turning.noria("run", "--project", str(project), check=False)
        removed = turning.noria("run", "sources", "--cycle", "other", "--project", str(project), check=False)
    finally:
        first.kill()
        first.wait()
    for done in (second, removed):
        assert done.returncode == 1
        assert "a cycle of 'helpdesk' runs already" in done.stderr
