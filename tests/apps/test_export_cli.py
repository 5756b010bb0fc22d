"""`noria export`: what cron and Airflow are given."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from noria.apps import exports, start
from noria.apps.cli import app
from noria.cycle import STAGES
from noria.errors import Invalid, NoriaError, NotFound, Unavailable
from noria.settings import environment, load
from noria.stage import stages_of

pytestmark = pytest.mark.slow

CRONTAB = """#!/bin/sh
# As cron's own: -l lists or fails, - replaces by what comes in.
set -eu
file=$(dirname "$0")/table
case "$1" in
  -l) [ ! -f "$file.broken" ] || { echo "$file: Input/output error" >&2; exit 1; }
      [ "$LC_ALL" = C ] && [ -f "$file" ] || { echo "no crontab for $(id -un)" >&2; exit 1; }; cat "$file" ;;
  -) cat > "$file.new"; ! grep -q refused "$file.new" || { echo "bad minute" >&2; exit 1; }; mv "$file.new" "$file" ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    start.make(tmp_path / "my shop 100%")
    return tmp_path / "my shop 100%"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a crontab of the test's own keeps its lines."""
    program = tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(CRONTAB)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{environment('PATH')}")
    return program.parent / "table"


def run(*words: str, project: Path) -> str:
    done = CliRunner().invoke(app, ["export", *words, "--project", str(project)])
    if isinstance(done.exception, NoriaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("word", ["cron", "airflow"])
def test_every_command_has_an_example(word: str) -> None:
    assert "Example: noria export" in CliRunner().invoke(app, ["export", word, "--help"]).output


def test_the_line_is_cron_s_and_its_words_are_the_shell_s(project: Path) -> None:
    line = run("cron", project=project).rstrip("\n")
    assert line.startswith(f"0 0 * * * {sys.executable} -m noria run --task helpdesk --project ")
    command = line.removeprefix("0 0 * * * ")
    assert command.replace("\\%", "").count("%") == 0
    words = shlex.split(command.replace("\\%", "%"))
    assert words[words.index("--project") + 1] == str(project)
    assert words[-3:] == [">>", str(project / ".noria" / "logs" / "cron.log"), "2>&1"]


def test_it_is_installed_once_and_removed_and_the_rest_stays(project: Path, table: Path) -> None:
    table.write_text("# mine\n5 4 * * * backup\n")
    for at in ("0 0 * * *", "*/15 6-22 * * 1-5"):
        run("cron", "--at", at, "--install", project=project)
    lines = table.read_text().splitlines()
    assert lines[:2] == ["# mine", "5 4 * * * backup"]
    assert len(lines) == 4
    assert lines[3].startswith("*/15 6-22 * * 1-5 ")
    assert (project / ".noria" / "logs").is_dir()
    assert run("cron", "--remove", project=project) == "removed\n"
    assert table.read_text() == "# mine\n5 4 * * * backup\n"
    with pytest.raises(NotFound, match="has no line for 'helpdesk'"):
        run("cron", "--remove", project=project)


def test_the_first_line_of_a_user_and_what_crontab_refuses(project: Path, table: Path) -> None:
    assert json.loads(run("cron", "--install", "--json", project=project))["installed"]
    assert len(table.read_text().splitlines()) == 2
    kept = table.read_text()
    table.write_text(kept + "# refused\n")
    with pytest.raises(Unavailable, match="bad minute"):
        run("cron", "--install", project=project)
    assert table.read_text() == kept + "# refused\n"


def test_without_cron_the_error_says_so(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no crontab on this machine"):
        run("cron", "--install", project=project)
    with pytest.raises(Invalid, match="at once"):
        run("cron", "--install", "--remove", project=project)


WRONG = (
    "", "0 0 * *", "60 0 * * *", "0 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8", "a b c d e", "5-1 * * * *",
    "*/0 * * * *", "0 0 * * * root", "@reboot", "0 0 * * *\n* *",
)  # fmt: skip


@pytest.mark.parametrize("at", WRONG)
def test_what_is_no_schedule_is_refused(project: Path, at: str) -> None:
    for kind in ("cron", "airflow"):
        with pytest.raises(Invalid):
            run(kind, "--at", at, project=project)


@pytest.mark.parametrize("at", ["@daily", "1,31 0-23/2 1 1 0", " 0  0 * * 7"])
def test_what_is_one_is_taken(project: Path, at: str) -> None:
    assert run("cron", "--at", at, project=project).startswith(" ".join(at.split()))


@pytest.mark.parametrize("tune", ["", '[tasks.helpdesk.tune]\npreset = "booklet"\n'])
def test_the_dag_has_the_stages_as_they_read_one_another(project: Path, tmp_path: Path, tune: str) -> None:
    file = project / "noria.toml"
    file.write_text(file.read_text() + tune)
    out = tmp_path / "dag.py"
    run("airflow", "--out", str(out), project=project)
    code = out.read_text()
    names: dict[str, Any] = {}
    exec(compile("\n".join(_without_airflow(code)), str(out), "exec"), names)
    stages = stages_of(STAGES, load(file).tasks["helpdesk"])
    assert names["STAGES"] == {stage.name: stage.reads for stage in stages}
    assert ("study" in names["STAGES"]) == bool(tune)
    words = shlex.split(names["COMMAND"].replace("{stage}", "sources"))
    assert words == [
        "noria", "run", "sources", "--task", "helpdesk", "--project", str(project), "--cycle", "$NORIA_CYCLE",
    ]  # fmt: skip
    assert '"NORIA_CYCLE": "{{ run_id }}"' in code
    assert "import noria" not in code
    with pytest.raises(NotFound, match="no folder"):
        run("airflow", "--out", str(tmp_path / "none" / "dag.py"), project=project)
    shown = json.loads(run("airflow", "--noria", "/opt/x/python -m noria", "--json", project=project))
    assert "/opt/x/python -m noria run" in shown["dag"]


def _without_airflow(code: str) -> list[str]:
    """What stands before the DAG, without the imports that only Airflow's environment has."""
    lines = code.split("with DAG(")[0].splitlines()
    return [line for line in lines if not line.startswith(("import", "from"))]


def test_a_mark_of_another_project_is_left_alone() -> None:
    lines = ["# noria: task a of /x", "@daily python -m noria run --task a", "# noria: task b of /x", "line b"]
    assert exports._without(lines, "# noria: task a of /x") == (lines[2:], True)


def test_a_line_of_somebody_else_below_a_mark_stays() -> None:
    lines = ["# noria: task a of /x", "5 4 * * * backup", "5 5 * * * other"]
    assert exports._without(lines, "# noria: task a of /x") == (lines[1:], True)


def test_a_crontab_that_cannot_be_read_is_not_overwritten(project: Path, table: Path) -> None:
    table.write_text("5 4 * * * backup\n")
    table.with_name("table.broken").touch()
    for word in ("--install", "--remove"):
        with pytest.raises(Unavailable, match=r"cannot be read: .*Input/output error"):
            run("cron", word, project=project)
    assert table.read_text() == "5 4 * * * backup\n"


def test_lines_of_others_go_back_byte_by_byte(project: Path, table: Path) -> None:
    kept = b"5 4 * * * echo '\xe9 \x0b \xc2\x85'\n\n# end\n"
    table.write_bytes(kept)
    run("cron", "--install", project=project)
    run("cron", "--remove", project=project)
    assert table.read_bytes() == kept


def test_the_printed_line_can_run(project: Path) -> None:
    run("cron", project=project)
    assert (project / ".noria" / "logs").is_dir()


def test_what_airflow_cannot_have_is_one_clear_message(project: Path, tmp_path: Path) -> None:
    for words, because in (
        (["--noria", "it's"], "no command: No closing quotation"),
        (["--noria", " "], "' ' is no command"),
        (["--out", str(tmp_path)], "is a folder"),
        (["--out", "."], "is a folder"),
    ):
        with pytest.raises(Invalid, match=because):
            run("airflow", *words, project=project)
    assert list(tmp_path.parent.glob(".*.new")) == []
