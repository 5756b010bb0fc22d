"""`noria tune`: values of a recipe, searched before the adapter is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened
from noria.errors import Invalid

if TYPE_CHECKING:
    from typer._click.core import Context

COLUMNS = ["trial", "state", "value", "seconds", "drawn", "because"]


class _Named(typer.core.TyperGroup):
    """A group whose first word may be a task: `noria tune helpdesk` is `noria tune run helpdesk`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        if not any(each in self.commands for each in args[:1]) and args[:1] != ["--help"]:
            args = ["run", *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=_Named,
    help="Search values of the recipe before it is carried out. Without one of the commands below: run."
    "\n\nExample: noria tune helpdesk --trials 12",
)

Task = Annotated[str | None, typer.Argument(help="Which task; not needed where there is only one.")]
Study = Annotated[str | None, typer.Argument(help="TASK-DIGEST, as `noria tune list` names it; the latest without it.")]


@group.callback()
def about_tuning() -> None:
    """Search values of the recipe before it is carried out."""


@group.command("run")
def run_study(
    task: Task = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all, those of earlier sittings too.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Minutes of all trials together.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, random, grid or hyperopt-tpe.")] = None,
    join: Annotated[bool, typer.Option("--join", help="Help the study that another process has begun.")] = False,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Run the cycle up to the study. Ctrl-C leaves it as it is; the next call goes on with it.

    Example: noria tune helpdesk --trials 12            Example: noria tune --join
    """
    from noria import cycle
    from noria.apps import tuning
    from noria.apps.screen import Screen, show

    platform = opened(project)
    name, _ = platform.settings.task(task)
    if join:
        if (trials, minutes, sampler) != (None, None, None):
            raise Invalid("--join with a budget or a sampler", "these are of who began the study; leave them away")
        with Screen() as screen:
            study, made = cycle.join(platform, name, screen)
        told: dict[str, Any] = {"study": study, "made": made}
        show(told if as_json else f"{study}: {made} trials made here", as_json)
        return
    platform = tuning.with_budget(platform, name, trials, minutes, sampler)
    with Screen() as screen:
        turn = cycle.turn(platform, name, screen, until="study", started=screen.started, finished=screen.finished)
    made_of = turn.artifact("study")
    told = {"cycle": turn.cycle.id, "output": str(made_of.ref), **tuning.told(platform, str(made_of.meta["study"]))}
    _print(told, as_json)


@group.command("show")
def show_study(study: Study = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """The trials of a study, those under way too, and what made the difference.

    Example: noria tune show            Example: noria tune show helpdesk-0123456789abcdef --json
    """
    from noria.apps import tuning

    platform = opened(project)
    if study is None or study in platform.settings.tasks:
        study = tuning.latest(platform, platform.settings.task(study)[0])
    _print(tuning.told(platform, study), as_json)


@group.command("list")
def list_studies(task: Task = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Every study, oldest first.

    Example: noria tune list
    """
    from noria.apps import tuning
    from noria.apps.screen import show, table_of

    platform = opened(project)
    found = tuning.listed(platform, platform.settings.task(task)[0] if task else None)
    columns = ["study", "sampler", "budget", "complete", "pruned", "failed", "running", "seconds"]
    rows = [
        [*(str(each[name]) for name in columns), f"{each['best']['value']:.5g}" if each["best"] else ""]
        for each in found
    ]
    plain = [{name: value for name, value in each.items() if name != "trials"} for each in found]
    show(plain, as_json, table_of([*columns, "best"], rows))


@group.command("remove")
def remove_study(
    study: Annotated[str, typer.Argument(help="TASK-DIGEST, as `noria tune list` names it.")],
    project: Folder = HERE,
) -> None:
    """Forget a study's trials; what was made with its winner stays.

    Example: noria tune remove helpdesk-0123456789abcdef
    """
    opened(project).studies.remove(study)
    typer.echo(f"removed {study}")


def _print(told: dict[str, Any], as_json: bool) -> None:
    from noria.apps import tuning
    from noria.apps.screen import show, table_of

    if as_json:
        show(told, as_json=True)
        return
    show(None, False, table_of(COLUMNS, [tuning.row(each) for each in told["trials"]]))
    best = told["best"]
    if best is not None:
        values = ", ".join(f"{name} = {value}" for name, value in best["values"].items())
        typer.echo(f"{told['study']}: best {best['value']:.5g} of trial {best['number']}: {values}")
    if told["importance"]:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in told["importance"].items())
        typer.echo(f"what made the difference: {shares}")
