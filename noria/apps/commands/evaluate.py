"""`noria evaluate`: metrics, reports, and outside harnesses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened

if TYPE_CHECKING:
    from noria.evaluation.harness import HarnessReport
    from noria.types import Ref

group = typer.Typer(
    no_args_is_help=True,
    help="Metrics, reports, and outside harnesses.\n\nExample: noria evaluate show --html report.html",
)
outside = typer.Typer(
    no_args_is_help=True,
    help="Outside harnesses against what serves, each in an environment of its own that is installed at first use."
    "\n\nExample: noria evaluate harness lm-eval --include examples/harness noria_facts",
)
group.add_typer(outside, name="harness")

Html = Annotated[Path | None, typer.Option("--html", help="Write a page here that needs nothing beside it.")]
Report = Annotated[str | None, typer.Argument(help="report:…, comparison:… or harness:…; the latest without it.")]
Address = Annotated[str | None, typer.Option(help="Another server's base URL, that ends in /v1; else `noria up`.")]
Model = Annotated[str | None, typer.Option(help="Name of the model there; else the task's.")]
Aside = Annotated[
    str | None, typer.Option("--candidate", help="A candidate that does not serve: candidate:TASK@DIGEST.")
]
Key = Annotated[str | None, typer.Option(help="Name of the variable that holds the key of --url.")]


@group.command("metrics")
def list_metrics(
    name: Annotated[str | None, typer.Argument(help="Only this one, with its definition.")] = None,
    as_json: AsJson = False,
) -> None:
    """What can stand in tasks.NAME.metrics: needs, range, direction, unit, definition and source of every metric.

    Example: noria evaluate metrics            Example: noria evaluate metrics bleu
    """
    from noria.apps import views
    from noria.apps.screen import show, table_of
    from noria.evaluation import metrics

    found = [views.metric_told(metrics.find(each)) for each in ([name] if name else metrics.names())]
    if as_json:
        show({"metrics": found}, as_json=True)
    elif name:
        show(None, False, table_of(["", ""], [[key, str(value)] for key, value in found[0].items()]))
    else:
        columns = ["name", "needs", "low", "high", "better", "unit", "definition"]
        rows = [["" if each[key] is None else str(each[key]) for key in columns] for each in found]
        show(None, False, table_of(columns, rows))


@group.command("list")
def list_reports(task: Task = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """List reports: of cycles, of comparisons, of harnesses.

    Example: noria evaluate list
    """
    from noria.apps import evaluations
    from noria.apps.screen import show, table_of

    platform = opened(project)
    names = [platform.settings.task(task)[0]] if task else [*platform.settings.tasks]
    found = [each for name in names for each in evaluations.listed(platform, name)]
    columns = ["report", "kind", "at", "candidate", "verdict", "told"]
    show(found, as_json, table_of(columns, [[str(each[name] or "") for name in columns] for each in found]))


@group.command("show")
def show_report(
    report: Report = None, html: Html = None, task: Task = None, as_json: AsJson = False, project: Folder = HERE
) -> None:
    """Show a report: scores with intervals, groups of rows that lost, advice; with --html as a page.

    Example: noria evaluate show --html report.html
    """
    from noria.apps import evaluations, tables
    from noria.apps.screen import show

    platform = opened(project)
    ref = evaluations.ref_of(platform, report, task)
    if html is not None:
        html.write_text(evaluations.drawn(platform, ref))
    told = evaluations.told(platform, ref)
    if as_json:
        show(told, as_json=True)
        return
    tables.printed(told)
    if html is not None:
        typer.echo(f"wrote {html}")


@group.command("remove")
def remove_report(
    report: Annotated[str, typer.Argument(help="Ref, from `noria evaluate list`.")], project: Folder = HERE
) -> None:
    """Take a report out of the lake; one that a release rests on is kept.

    Example: noria evaluate remove report:helpdesk@0123456789abcdef
    """
    from noria.apps import evaluations

    platform = opened(project)
    typer.echo(f"removed {evaluations.remove(platform, evaluations.ref_of(platform, report, None))}")


@outside.command("lm-eval")
def run_lm_eval(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks of the folder; all of them without any.")] = None,
    include: Annotated[Path | None, typer.Option(help="Folder of the tasks' YAML.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many rows of each task.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the model's tokenizer, for multiple choice.")
    ] = None,
    url: Address = None,
    model: Model = None,
    key: Key = None,
    candidate: Aside = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Run tasks of EleutherAI's lm-evaluation-harness; multiple choice needs vLLM or Transformers behind the URL.

    Example: noria evaluate harness lm-eval --include examples/harness noria_facts
    """
    from noria.apps import harnesses
    from noria.apps.screen import Screen

    platform = opened(project)
    order = harnesses.Order(
        platform.settings.task(task)[0], url, model, key, limit=limit, include=include, tokenizer=tokenizer,
        candidate=candidate,
    )  # fmt: skip
    with Screen() as screen:
        found = harnesses.run_lm_eval(platform, order, tasks or [], screen)
    _told(*found, as_json)


@outside.command("garak")
def run_garak(
    probes: Annotated[list[str] | None, typer.Argument(help="Probes, such as encoding.InjectBase64.")] = None,
    cap: Annotated[int, typer.Option(min=1, help="About this many prompts of each probe.")] = 8,
    benign: Annotated[Path | None, typer.Option(help="CSV with harmless questions of your own.", exists=True)] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 100,
    url: Address = None,
    model: Model = None,
    key: Key = None,
    candidate: Aside = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Run attacks of NVIDIA's garak, and harmless questions beside them: who refuses everything passes every attack.

    Example: noria evaluate harness garak encoding.InjectBase64 --cap 8
    """
    from noria.apps import harnesses
    from noria.apps.screen import Screen

    platform = opened(project)
    name = platform.settings.task(task)[0]
    order = harnesses.Order(name, url, model, key, limit=cap, benign=benign, tokens=max_tokens, candidate=candidate)
    with Screen() as screen:
        found = harnesses.run_garak(platform, order, probes or [], screen)
    _told(*found, as_json)


def _told(ref: Ref, report: HarnessReport, as_json: bool) -> None:
    from noria.apps import tables
    from noria.apps.screen import show

    told = {"report": str(ref), **report.model_dump(mode="json")}
    if as_json:
        show(told, as_json=True)
    else:
        tables.printed(told)
