"""What schedulers are given: a line for cron, a DAG for Airflow."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from noria.cycle import STAGES
from noria.errors import Invalid, NotFound, Unavailable
from noria.settings import Settings, child_environment
from noria.stage import stages_of

_RANGES = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_NAMED = re.compile(r"@(?:hourly|daily|midnight|weekly|monthly|yearly|annually)")
_PART = re.compile(r"(\*|\d+(?:-\d+)?)(?:/(\d+))?")
_OURS = " -m noria run "
LOG = "cron.log"


def cron_line(settings: Settings, task: str, at: str) -> str:
    """The crontab line that turns a task's wheel: `0 0 * * * PYTHON -m noria run …`, both outputs to a log.

    It need not look for other runs: `noria run` says Conflict while one is under way. Raises Invalid for a schedule
    that cron would not take. The folder of the log is made here: without it the shell would not run the line at all.
    """
    at = _schedule(at)
    log = settings.state / "logs" / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "noria", "run", "--task", task, "--project", str(settings.root)]
    command = f"{shlex.join(words)} >> {shlex.quote(str(log))} 2>&1"
    # Cron takes a plain % for the end of the line.
    return f"{at} {command.replace('%', chr(92) + '%')}"


def install(settings: Settings, task: str, line: str) -> None:
    """Put the line into the user's crontab, in the place of an earlier one of this task; all else stays."""
    kept, _ = _without(_crontab(), _mark(settings, task))
    _write([*kept, _mark(settings, task), line])


def remove(settings: Settings, task: str) -> None:
    """Take the task's line out of the user's crontab; raises NotFound where there is none."""
    kept, found = _without(_crontab(), _mark(settings, task))
    if not found:
        raise NotFound(f"the crontab has no line for '{task}' of this project", "noria export cron --install")
    _write(kept)


def airflow_dag(settings: Settings, task: str, at: str, noria: str) -> str:
    """A DAG file of Airflow 3: one BashOperator a stage, in the order in which stages read one another.

    It imports nothing of noria, which needs not be installed where Airflow is, only on the path of its workers (or at
    `noria`). The name of Airflow's run goes through the environment: on a command line, a name that a user types
    would be a part of the command. Raises Invalid for a schedule that cron would not take, and for a `noria` that is
    no words of a shell.
    """
    edges = {stage.name: list(stage.reads) for stage in stages_of(STAGES, settings.tasks[task])}
    words = [*_words(noria), "run", "{stage}", "--task", task, "--project", str(settings.root)]
    shown = " ".join(word if word == "{stage}" else shlex.quote(word) for word in words)
    command = shown + ' --cycle "$NORIA_CYCLE"'
    reads = "".join(f"    {name!r}: {tuple(before)!r},\n" for name, before in edges.items())
    return _DAG.format(
        name=f"noria-{settings.project.name}-{task}", task=task, project=settings.project.name, reads=reads,
        schedule=_schedule(at), command=command, brace="{{ run_id }}",
    )  # fmt: skip


_DAG = '''"""The wheel of task {task!r} of the noria project {project!r}; written by: noria export airflow."""

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

STAGES = {{  # name: what it reads
{reads}}}
COMMAND = {command!r}

with DAG(
    {name!r},
    schedule={schedule!r},
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["noria"],
):
    # The name of the run goes through the environment: a user can type anything into it.
    tasks = {{
        stage: BashOperator(
            task_id=stage,
            bash_command=COMMAND.replace("{{stage}}", stage),
            env={{"NORIA_CYCLE": "{brace}"}},
            append_env=True,
            retries=1,
            retry_delay=pendulum.duration(minutes=1),
        )
        for stage in STAGES
    }}
    for stage, reads in STAGES.items():
        for read in reads:
            tasks[read] >> tasks[stage]
'''


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise Invalid(
            f"'{command}' is no command: {error}", "quote it as a shell would: /opt/noria/bin/noria"
        ) from None
    if not words:
        raise Invalid(f"'{command}' is no command", "such as --noria /opt/noria/bin/noria")
    return words


def _schedule(at: str) -> str:
    at = " ".join(at.split())
    fields = at.split(" ")
    if _NAMED.fullmatch(at):
        return at
    if len(fields) != len(_RANGES):
        raise Invalid(f"'{at}' is no schedule", 'five fields, such as "0 0 * * *", or @daily')
    for text, (name, least, most) in zip(fields, _RANGES, strict=True):
        for part in text.split(","):
            found = _PART.fullmatch(part)
            numbers = [int(each) for each in found[1].split("-")] if found and found[1] != "*" else []
            good = found is not None and all(least <= each <= most for each in numbers) and numbers == sorted(numbers)
            if not good or (found is not None and found[2] is not None and int(found[2]) < 1):
                raise Invalid(f"'{text}' is no {name} of a schedule", f"a number from {least} to {most}, or *")
    return at


def _mark(settings: Settings, task: str) -> str:
    return f"# noria: task {task} of {settings.root}"


def _crontab() -> list[str]:
    done = _call(["-l"], None)
    if done.returncode == 0:
        # Not splitlines: the lines of others go back as they are, whatever characters stand in them.
        return done.stdout.removesuffix("\n").split("\n") if done.stdout else []
    # Any other failure hides lines that writing would wipe.
    if "no crontab for" not in done.stderr:
        raise Unavailable(f"crontab cannot be read: {done.stderr.strip()}", "install the line by hand: crontab -e")
    return []


def _write(lines: list[str]) -> None:
    done = _call(["-"], "".join(f"{line}\n" for line in lines))
    if done.returncode != 0:
        raise Unavailable(f"crontab refused it: {done.stderr.strip()}", "install the line by hand: crontab -e")


def _without(lines: list[str], mark: str) -> tuple[list[str], bool]:
    """The lines but for the mark and our one below it, and whether the mark was there."""
    kept: list[str] = []
    below = found = False
    for line in lines:
        if line == mark:
            below = found = True
            continue
        # Somebody may have deleted the line and left the mark.
        if not (below and _OURS in line):
            kept.append(line)
        below = False
    return kept, found


def _call(words: list[str], text: str | None) -> subprocess.CompletedProcess[str]:
    program = shutil.which("crontab")
    if program is None:
        raise Unavailable("there is no crontab on this machine", "install cron, or take: noria run --watch")
    # Its messages in English, by which it is understood; bytes that are no UTF-8 go back as they came.
    return subprocess.run(
        [program, *words], input=text, capture_output=True, check=False, env=child_environment(LC_ALL="C"),
        encoding="utf-8", errors="surrogateescape",
    )  # fmt: skip


def written(text: str, out: Path) -> Path:
    """Write a file whole or not at all; raises NotFound for a folder that does not exist, Invalid for a folder."""
    if out.is_dir():
        raise Invalid(f"'{out}' is a folder", f"name a file in it: --out {out / 'noria.py'}")
    if not out.parent.is_dir():
        raise NotFound(f"there is no folder '{out.parent}'", "make it first, or name another --out")
    fresh = out.with_name(f".{out.name}.new")
    fresh.write_text(text)
    fresh.replace(out)
    return out
