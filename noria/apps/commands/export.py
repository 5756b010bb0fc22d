"""`noria export`: the wheel for other people's schedulers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened
from noria.errors import Invalid

group = typer.Typer(
    no_args_is_help=True, help="The wheel for cron and Airflow.\n\nExample: noria export cron --install"
)

At = Annotated[str, typer.Option("--at", help="When, as cron writes it: minute, hour, day, month, day of the week.")]


@group.command("cron")
def export_cron(
    at: At = "0 0 * * *",
    install: Annotated[bool, typer.Option("--install", help="Put it into your crontab.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out of your crontab.")] = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Print the crontab line that turns the wheel, or install or remove it.

    Example: noria export cron --at "0 0 * * *" --install
    """
    from noria.apps import exports
    from noria.apps.screen import show

    settings = opened(project).settings
    name, _ = settings.task(task)
    if install and remove:
        raise Invalid("--install and --remove at once", "choose one")
    line = exports.cron_line(settings, name, at)
    if install:
        exports.install(settings, name, line)
    elif remove:
        exports.remove(settings, name)
    if as_json:
        show({"task": name, "line": line, "installed": install, "removed": remove}, as_json=True)
    else:
        typer.echo("removed" if remove else line)


@group.command("airflow")
def export_airflow(
    at: At = "0 0 * * *",
    out: Annotated[Path | None, typer.Option(help="Write the DAG file here; else it is printed.")] = None,
    noria: Annotated[str, typer.Option(help="How Airflow's workers call noria.")] = "noria",
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """A DAG of Airflow 3 that runs each stage by `noria run STAGE --cycle …`; Airflow has an environment of its own.

    Example: noria export airflow --out ~/airflow/dags/helpdesk.py
    """
    from noria.apps import exports
    from noria.apps.screen import show

    settings = opened(project).settings
    name, _ = settings.task(task)
    text = exports.airflow_dag(settings, name, at, noria)
    if out is not None:
        exports.written(text, out)
    if as_json:
        show({"task": name, "dag": text, "file": str(out) if out else None}, as_json=True)
    else:
        typer.echo(f"wrote {out}" if out else text)
