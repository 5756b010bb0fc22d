"""`noria canary`: a challenger on a share of the traffic, and what is watched after its promotion."""

from __future__ import annotations

from typing import Any

import typer

from noria.apps.commands.options import HERE, AsJson, Candidate, Folder, Task, opened, person, reference, registered

FEW = 20
"""Users of a slice below which hardly anything can be shown."""

group = typer.Typer(
    no_args_is_help=True, help="Trials of a challenger on real traffic.\n\nExample: noria canary status"
)


@group.callback()
def about_canary() -> None:
    """Trials of a challenger on real traffic."""


@group.command("status")
def show_trial(task: Task = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """What a trial has shown so far: both slices, and the means of their paired scores.

    Example: noria canary status
    """
    from noria.apps import views
    from noria.apps.screen import show, table_of

    platform = opened(project)
    name, _ = platform.settings.task(task)
    told = views.evidence(platform, name)
    if as_json:
        show(told, as_json=True)
        return
    running = told["trial"]
    if running is None:
        typer.echo(f"there is no trial of '{name}'; the latest decision: {told['because'] or 'none'}")
        return
    typer.echo(f"{'canary' if running['phase'] == 'canary' else 'watch after the promotion'} since {running['began']}")
    show(None, False, table_of(["slice", "served by", "requests", "errors", "p95", "from"], _slices(told)))
    rows = [
        [metric, str(each["pairs"]), f"{each['challenger']:.3f}", f"{each['control']:.3f}"]
        for metric, each in told["metrics"].items()
    ]
    show(None, False, table_of(["metric", "pairs", "challenger", "control"], rows))
    if (few := min(each.get("users", FEW) for each in told["slices"].values())) < FEW:
        typer.echo(
            f"a slice has {few} users, whose first scores count; where callers send no user, or are few, set "
            f'[tasks.{name}] sticky = "conversation"'
        )


@group.command("start")
def start_trial(candidate: Candidate, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Try a candidate that has a report on the share [tasks.NAME.release] canary; lifts its hold.

    Example: noria canary start candidate:helpdesk@0123456789abcdef
    """
    from noria.deployment import release

    platform, ref = opened(project), reference(candidate)
    name, _ = platform.settings.task(ref.name)
    _told(release.start(platform, name, ref, person()), as_json)
    registered(platform, name)


@group.command("stop")
def stop_trial(
    task: Task = None,
    reason: str = typer.Option("no reason given", help="Why; kept in the ledger."),
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """End a trial: a challenger is taken back and held; after its promotion only the control slice ends.

    Example: noria canary stop --reason "wrong prices"
    """
    from noria.deployment import canary

    platform = opened(project)
    name, _ = platform.settings.task(task)
    _told(canary.stop(platform, name, person(), reason), as_json)
    registered(platform, name)


@group.command("promote")
def promote_challenger(task: Task = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Make the challenger the champion without waiting for the end of its trial.

    Example: noria canary promote
    """
    from noria.deployment import canary

    platform = opened(project)
    name, _ = platform.settings.task(task)
    _told(canary.promote(platform, name, person()), as_json)
    registered(platform, name)


@group.command("watch")
def watch_trials(as_json: AsJson = False, project: Folder = HERE) -> None:
    """Look at all trials once and end those that are decided, as `noria up` does every few seconds; for cron.

    Example: noria canary watch
    """
    from noria.apps import views
    from noria.apps.screen import show
    from noria.deployment.watcher import Watcher

    platform = opened(project)
    made = Watcher(platform, lambda line: typer.echo(line, err=True)).poll()
    if as_json:
        show({"ended": [views.released(each) for each in made]}, as_json=True)
    elif not made:
        typer.echo("no trial was decided")
    for each in made:
        registered(platform, each.task)


def _told(live: Any, as_json: bool) -> None:
    from noria.apps import views
    from noria.apps.screen import show

    told = views.released(live)
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(f"release {told['version']} of '{told['task']}': {told['champion'] or 'the base'}, {told['because']}")


def _slices(told: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, each in told["slices"].items():
        p95 = "" if each["p95_ms"] is None else f"{each['p95_ms']:.0f} ms"
        whose = next(f"{each[word]} {word}" for word in ("users", "conversations") if word in each)
        rows.append([name, each["served_by"], str(each["requests"]), str(each["errors"]), p95, whose])
    return rows
