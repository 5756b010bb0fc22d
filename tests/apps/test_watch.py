"""`noria run --watch` and `--cycle`: turns when something is new, one at a time, and stages of a named cycle."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from noria.apps import start
from noria.apps.cli import app
from noria.apps.watch import LONGEST, Watch
from noria.errors import Conflict, Invalid, NoriaError, NotFound

NORIA = ["-m", "noria"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    start.make(tmp_path / "shop")
    return tmp_path / "shop"


def run(*words: str, project: Path) -> Any:
    done = CliRunner().invoke(app, ["run", *words, "--json", "--project", str(project)])
    if isinstance(done.exception, NoriaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_a_turn_when_sources_change_and_none_else(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(project, None, "dataset", 5.0, True)
    assert watch.look() == 5.0
    (first,) = said(capsys)
    assert (first["event"], [stage["stage"] for stage in first["stages"]]) == (
        "turned", ["sources", "documents", "dataset"],
    )  # fmt: skip
    watch.look()
    assert said(capsys) == []
    # Another watch does what is due at first, which is nothing here.
    assert Watch(project, None, "dataset", 5.0, True).look() == 5.0
    assert [stage["skipped"] for stage in said(capsys)[0]["stages"]] == [True] * 3
    file = project / "data" / "faq.csv"
    file.write_text(file.read_text() + "Is this new?,Yes it is.\n")
    watch.look()
    (second,) = said(capsys)
    assert second["stages"][2]["output"] != first["stages"][2]["output"]
    settings = project / "noria.toml"
    settings.write_text(settings.read_text() + "answer_chars = 20\n")
    watch.look()
    assert said(capsys)[0]["stages"][2]["output"] != second["stages"][2]["output"]


@pytest.mark.slow
def test_a_watch_begins_with_what_a_partial_run_left_and_tries_again_what_fails(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project / "data" / "faq.csv"
    kept = file.read_text()
    file.write_text("question,answer\nOnly one?,Only one.\n")
    run("sources", project=project)
    watch = Watch(project, None, "dataset", 5.0, True)
    assert [watch.look(), watch.look()] == [10.0, 20.0]
    assert [each["event"] for each in said(capsys)] == ["failed", "failed"]
    file.write_text(kept)
    assert watch.look() == 5.0
    assert len(said(capsys)[0]["stages"]) == 3


@pytest.mark.slow
def test_failures_back_off_and_a_conflict_waits(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(project, None, "sources", 60.0, True)
    file = project / "data" / "faq.csv"
    kept = file.read_text()
    file.unlink()
    assert [watch.look() for _ in range(7)] == [120.0, 240.0, 480.0, 960.0, 1920.0, LONGEST, LONGEST]
    assert {each["event"] for each in said(capsys)} == {"failed"}
    file.write_text(kept)
    locks = project / ".noria" / "locks"
    locks.mkdir(exist_ok=True)
    with (locks / "cycle-helpdesk.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert watch.look() == 60.0
        assert said(capsys)[0]["event"] == "waits"
        with pytest.raises(Conflict, match="runs already"):
            run("sources", project=project)
    assert watch.look() == 60.0
    assert said(capsys)[0]["event"] == "turned"


@pytest.mark.slow
def test_sigterm_ends_it_after_the_stage_in_hand(project: Path) -> None:
    import sys

    words = [sys.executable, *NORIA, "run", "dataset", "--watch", "--every", "0.2", "--json", "--project", str(project)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        while not list(project.glob("lake/.scratch/*-*")) and not list(project.glob("lake/sources/*/*")):
            assert process.poll() is None
            time.sleep(0.01)
        other = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert (other.returncode, "is watched already" in other.stderr) == (1, True)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1])["event"] in ("stopped", "turned")
    assert list(project.glob("lake/.scratch/*-*")) == []
    assert [stage["stage"] for stage in run("dataset", project=project)["stages"]] == [
        "sources",
        "documents",
        "dataset",
    ]


@pytest.mark.slow
def test_a_scheduler_s_cycle_runs_stage_by_stage(project: Path) -> None:
    name = "manual__2026-01-01T00:00:00+00:00 $(touch x)"
    with pytest.raises(NotFound, match="has no sources yet"):
        run("documents", "--cycle", name, project=project)
    sources = run("sources", "--cycle", name, project=project)
    file = project / "data" / "faq.csv"
    file.write_text(file.read_text() + "Is this new?,Yes it is.\n")
    # A person's turn in between is a cycle of its own, and changes nothing for the scheduler's.
    own = run("documents", project=project)
    assert own["cycle"] != sources["cycle"]
    again = run("sources", "--cycle", name, project=project)
    assert again["stages"][0] | {"skipped": False, "seconds": 0} == sources["stages"][0] | {"seconds": 0}
    documents = run("documents", "--cycle", name, project=project)
    assert (documents["cycle"], len(documents["stages"])) == (sources["cycle"], 1)
    assert documents["stages"][0]["output"] != own["stages"][1]["output"]
    assert not Path("x").exists()


@pytest.mark.slow
def test_a_part_that_was_asked_for_is_looked_at_anew_the_next_time(project: Path) -> None:
    first = run("sources", project=project)
    file = project / "data" / "faq.csv"
    file.write_text(file.read_text() + "Is this new?,Yes it is.\n")
    second = run("sources", project=project)
    assert second["stages"][0]["output"] != first["stages"][0]["output"]
    with pytest.raises(Conflict, match="has ended without a dataset"):
        run("dataset", "--cycle", second["cycle"], project=project)
    told = run("sources", "--cycle", second["cycle"], project=project)
    assert (told["stages"][0]["output"], told["stages"][0]["skipped"]) == (second["stages"][0]["output"], True)


@pytest.mark.slow
def test_a_file_that_was_put_right_is_read_again(project: Path) -> None:
    file = project / "data" / "faq.csv"
    kept = file.read_text()
    file.write_text("question,answer\nOnly one?,Only one.\n")
    with pytest.raises(Invalid, match="has no test row"):
        run("dataset", project=project)
    file.write_text(kept)
    assert run("dataset", project=project)["stages"][2]["output"]


@pytest.mark.slow
def test_a_watch_that_goes_on_with_a_cycle_turns_again_for_what_came_since(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(project, None, "dataset", 1.0, True)
    name = project / "lake" / "documents"
    name.parent.mkdir(exist_ok=True)
    name.touch()
    failed = CliRunner().invoke(app, ["run", "dataset", "--project", str(project)])
    assert isinstance(failed.exception, NotADirectoryError)
    name.unlink()
    file = project / "data" / "faq.csv"
    file.write_text(file.read_text() + "Is this new?,Yes it is.\n")
    watch.look()
    watch.look()
    watch.look()
    first, second = said(capsys)
    assert first["stages"][2]["output"] != second["stages"][2]["output"]


def test_a_watch_begins_cycles_of_its_own(project: Path) -> None:
    with pytest.raises(Invalid, match="cycles of its own"):
        run("--watch", "--cycle", "x", project=project)
