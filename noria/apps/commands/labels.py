"""`noria labels`: ground truth for answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened, person
from noria.errors import NoriaError

if TYPE_CHECKING:
    from noria.evaluation.labels import Row
    from noria.ports import Platform

group = typer.Typer(no_args_is_help=True, help="Ground truth for answers.\n\nExample: noria labels next helpdesk")

Name = Annotated[str | None, typer.Argument(help="Which task; not needed where there is only one.", metavar="task")]
RowId = Annotated[str, typer.Argument(help="Id of the answer, from `noria labels list`.", metavar="row")]
Labeller = Annotated[str | None, typer.Option("--as", help="Who labels; else who is logged in.")]

PASS, STOP = "?", "q"


@group.command("queue")
def queue_labels(task: Name = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Choose the answers to be labelled among those that came since the last time. Every cycle does so too.

    Example: noria labels queue helpdesk
    """
    from noria.apps.screen import show, table_of
    from noria.evaluation.queue import choose

    platform = opened(project)
    name, _ = platform.settings.task(task)
    batch = choose(platform, name)
    if as_json:
        show({"task": name, "batch": batch.told() if batch else None}, as_json=True)
    elif batch is None:
        typer.echo(f"no answer of '{name}' came since the last time")
    else:
        reasons: Any = batch.told()["reasons"]
        typer.echo(f"{len(batch.rows)} of {batch.considered} new answers of '{name}' are asked for")
        show(None, False, table_of(["reason", "answers"], [[reason, str(count)] for reason, count in reasons.items()]))


@group.command("next")
def next_label(task: Name = None, labeller: Labeller = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Label one answer after the other. A wrong entry is asked for again; what was labelled is kept at once.

    Example: noria labels next helpdesk --as ann
    """
    from noria.apps.screen import show
    from noria.evaluation.labels import upcoming

    platform = opened(project)
    name, _ = platform.settings.task(task)
    who = labeller or person()
    if as_json:
        row = upcoming(platform, name, who)
        show({"task": name, "row": None if row is None else row.told(hidden=True)}, as_json=True)
        return
    done = 0
    while (row := upcoming(platform, name, who)) is not None and _ask(platform, name, row, who):
        done += 1
    typer.echo(f"{done} labelled" + ("" if row else f"; nothing more to label for '{who}'"))


@group.command("say")
def say_label(
    row: RowId,
    value: Annotated[str | None, typer.Argument(help="A value of the task's scale, or its name.")] = None,
    correction: Annotated[str | None, typer.Option(help="The right answer.")] = None,
    passing: Annotated[bool, typer.Option("--pass", help="It cannot be told.")] = False,
    labeller: Labeller = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Label one answer.

    Example: noria labels say 01932f6e-7a3c-7c11-9f00-1234567890ab wrong --correction "Within 30 days."
    """
    from noria.apps.recording import recorder
    from noria.apps.screen import show
    from noria.evaluation import labels

    platform = opened(project)
    name, _ = platform.settings.task(task)
    with recorder(platform) as log:
        said = labels.say(platform, log, name, row, labeller or person(), value, correction, passing=passing)
    show(said.told() if as_json else f"labelled {row}", as_json)


@group.command("show")
def show_label(row: RowId, task: Task = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """One answer of the queue, and what was said of it.

    Example: noria labels show 01932f6e-7a3c-7c11-9f00-1234567890ab
    """
    from noria.apps.screen import show, table_of
    from noria.evaluation import labels

    platform = opened(project)
    name, _ = platform.settings.task(task)
    found = labels.show(platform, name, row)
    if as_json:
        show(found.told(), as_json=True)
        return
    rows = _shown(found)
    rows += [["reason", f"{found.wanted.reason}, with a chance of {found.wanted.probability:.4g}"]]
    rows += [[f"label of {each.labeller}", _said(each.value, each.correction)] for each in found.labels]
    show(None, False, table_of(["", ""], rows))


@group.command("list")
def list_labels(
    task: Name = None,
    open_only: Annotated[bool, typer.Option("--open", help="Those only that want labels still.")] = False,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """The queue, oldest first.

    Example: noria labels list helpdesk --open
    """
    from noria.apps.screen import show, table_of
    from noria.evaluation import labels
    from noria.evaluation.queue import rules_of

    platform = opened(project)
    name, _ = platform.settings.task(task)
    wants = rules_of(platform, name).labellers
    found = [row for row in labels.rows(platform, name) if not open_only or row.given < wants]
    cells = [
        [row.wanted.id, row.wanted.reason, f"{row.wanted.probability:.4g}", f"{row.given} of {wants}",
         labels.question(row.answer)[:60]]
        for row in found
    ]  # fmt: skip
    told = {"task": name, "data": [row.told() for row in found]}
    show(told, as_json, table_of(["row", "reason", "chance", "labels", "question"], cells))


@group.command("agreement")
def agreement_of_labels(task: Name = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """How far labellers agree on what several of them labelled.

    Example: noria labels agreement helpdesk
    """
    from noria.apps.judging import comparer
    from noria.apps.screen import show, table_of
    from noria.evaluation import labels

    platform = opened(project)
    name = platform.settings.task(task)[0]
    with comparer(platform, name) as same:
        told: Any = labels.agreement(platform, name, same)
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(f"Krippendorff's alpha ({told['level']}): {_score(told['alpha'])} over {told['rows']} answers")
    cells = [
        [" and ".join(pair["labellers"]), str(pair["rows"]), f"{100 * pair['equal']:.0f} %", _score(pair["kappa"])]
        for pair in told["pairs"]
    ]
    show(None, False, table_of(["labellers", "answers", "equal", "Cohen's kappa"], cells))


@group.command("estimate")
def estimate_of_labels(task: Name = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """What the labels say of all answers: the share of right ones, with 95 % bounds, whatever the queue prefers.

    Example: noria labels estimate helpdesk
    """
    from noria.apps.judging import comparer
    from noria.apps.screen import show, table_of
    from noria.evaluation import labels

    platform = opened(project)
    name = platform.settings.task(task)[0]
    with comparer(platform, name) as same:
        told: Any = labels.estimate(platform, name, same)
    if as_json:
        show(told, as_json=True)
        return
    cells = [
        [each["group"], str(each["right"]["rows"]), _bounds(each["right"], 100, " %"), _bounds(each["value"], 1, ""),
         f"{each['wrong']:.0f}"]
        for each in told["groups"]
    ]  # fmt: skip
    show(None, False, table_of(["answers", "labelled", "right", "mean label", "not right, in all"], cells))
    typer.echo(
        f"{told['labelled']} of {told['wanted']} asked for are labelled; "
        f"they stand for {told['covered']} of {told['considered']} answers"
    )


@group.command("remove")
def remove_label(row: RowId, labeller: Labeller = None, task: Task = None, project: Folder = HERE) -> None:
    """Take one's own label back; the answer may then be labelled anew.

    Example: noria labels remove 01932f6e-7a3c-7c11-9f00-1234567890ab --as ann
    """
    from noria.apps.recording import recorder
    from noria.evaluation import labels

    platform = opened(project)
    name, _ = platform.settings.task(task)
    who = labeller or person()
    with recorder(platform) as log:
        labels.remove(platform, log, name, row, who)
    typer.echo(f"the label of '{who}' on {row} is taken back")


def _ask(platform: Platform, name: str, row: Row, who: str) -> bool:
    """Show an answer and take its label; False where the labeller stops."""
    from noria.apps.recording import recorder
    from noria.apps.screen import complain, show, table_of
    from noria.evaluation import labels
    from noria.evaluation.queue import rules_of

    rules = rules_of(platform, name)
    show(None, False, table_of(["", ""], _shown(row)))
    while True:
        try:
            value = typer.prompt(f"label ({', '.join(rules.scale)}; {PASS} passes, {STOP} stops)").strip()
            if value == STOP:
                return False
            known = None if value == PASS else labels.value_of(platform, name, value)
            wanted = known is not None and known < rules.least_right
            text = typer.prompt("the right answer (empty: none)", default="", show_default=False) if wanted else ""
            with recorder(platform) as log:
                labels.say(platform, log, name, row.wanted.id, who, known, text.strip() or None, passing=value == PASS)
            return True
        except NoriaError as error:
            complain(error)


def _shown(row: Row) -> list[list[str]]:
    from noria.evaluation.labels import question

    answer = row.answer
    earlier = [[str(each.get("role")), str(each.get("content"))] for each in answer.messages[:-1]]
    return [
        ["row", row.wanted.id],
        *earlier,
        ["question", question(answer)],
        ["context", answer.context or ""],
        ["answer", answer.answer],
        ["light", answer.light or ""],
    ]


def _said(value: float | None, correction: str | None) -> str:
    parts = [*([] if value is None else [f"{value:g}"]), *([] if correction is None else [f"right is: {correction}"])]
    return ", ".join(parts) or "passed"


def _score(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _bounds(each: dict[str, Any], scale: float, unit: str) -> str:
    return f"{scale * each['value']:.3g}{unit} ({scale * each['low']:.3g} to {scale * each['high']:.3g})"
