"""`noria judge`: models that score answers, and how far they can be believed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened
from noria.errors import Invalid

if TYPE_CHECKING:
    from noria.apps.judging import Ran
    from noria.evaluation.judges.calibration import Calibration

group = typer.Typer(
    no_args_is_help=True, help="Judges of answers.\n\nExample: noria judge run quality --file rows.jsonl"
)

Which = Annotated[str, typer.Argument(help="A judge of noria.toml: [judges.NAME].")]
Rows = Annotated[Path | None, typer.Option("--file", help="JSONL: question, answer, and what the judge needs.")]


@group.callback()
def about_judges() -> None:
    """Judges of answers."""


@group.command("list")
def list_judges(as_json: AsJson = False, project: Folder = HERE) -> None:
    """The judges of noria.toml, whether labels calibrate them, and what they have judged.

    Example: noria judge list
    """
    from noria.apps import judging
    from noria.apps.screen import show, table_of

    platform = opened(project)
    judges = [judging.known(platform, name) for name in platform.settings.judges]
    runs = [{"ref": str(ref), **told} for ref, told in judging.stored(platform)]
    if as_json:
        show({"judges": judges, "runs": runs}, as_json=True)
        return
    columns = ["judge", "method", "model", "calibrated by", "faults"]
    show(None, False, table_of(columns, [_judge_row(each) for each in judges]))
    if runs:
        columns = ["run", "of", "at", "rows", "void", "what people would say"]
        rows = [
            [each["ref"], each["of"], each["at"][:19], str(each["rows"]), str(sum(each["void"].values())), _worth(each)]
            for each in runs
        ]
        show(None, False, table_of(columns, rows))


@group.command("run")
def run_judge(
    which: Which,
    file: Rows = None,
    task: Task = None,
    report: Annotated[bool, typer.Option("--report", help="Judge the answers of the task's latest report.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows, of traffic the newest.")] = None,
    answers: Annotated[str | None, typer.Option(help="Engine that answers rows which have no answer yet.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Judge the rows of a file, a task's logged traffic (the default) or its latest report.

    What was judged before is not asked again. Scores of traffic are noted as feedback with the metric judge:NAME.

    Example: noria judge run quality --file rows.jsonl    Example: noria judge run quality --task helpdesk --limit 200
    """
    from noria.apps import judging
    from noria.apps.screen import Screen, show

    if file is not None and report:
        raise Invalid("--file and --report both name rows", "give one of them")
    platform = opened(project)
    judge = judging.judge_named(platform, which)
    pairs = judge.settings.method == "pairwise"
    parents = []
    if report:
        rows, where, ref = judging.rows_of_report(platform, task, pairs)
        rows, parents = rows[:limit], [ref]
    else:
        rows, where = judging.rows_to_judge(platform, file, task, limit, pairs)
    with Screen() as screen:
        if answers is not None:
            rows = judging.answered(platform, answers, rows, screen)
        ran = judging.run(platform, judge, rows, where, parents, screen)
    noted = judging.tell_traffic(platform, judge, ran.judged) if file is None and not report else 0
    if as_json:
        show({"ref": str(ran.ref), **ran.told, "noted": noted}, as_json=True)
        return
    _tell(ran)
    if noted:
        typer.echo(f"noted as feedback on {noted} answers: judge:{which}")


@group.command("show")
def show_run(
    ref: Annotated[str, typer.Argument(help="judgement:JUDGE@DIGEST, as `noria judge list` names it.")],
    rows: Annotated[int, typer.Option(min=0, help="How many rows to show, the worst first.")] = 10,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """A stored run: its numbers, its cost, and its rows with the judge's reasons.

    Example: noria judge show judgement:quality@0123456789abcdef
    """
    from noria.apps import judging
    from noria.apps.screen import show, table_of

    told, judged = judging.shown(opened(project), ref)
    if as_json:
        show({"ref": ref, **told, "judged": [each.model_dump(mode="json") for each in judged]}, as_json=True)
        return
    show(None, False, table_of(["", ""], _numbers(told)))
    judged.sort(key=lambda each: (each.score is None, each.score))
    table = [
        ["void" if each.score is None else f"{each.score:g}", each.row.question, each.row.answer,
         each.void or each.reason]
        for each in judged[:rows]
    ]  # fmt: skip
    show(None, False, table_of(["score", "question", "answer", "why"], table))


@group.command("remove")
def remove_run(
    ref: Annotated[str, typer.Argument(help="judgement:JUDGE@DIGEST, as `noria judge list` names it.")],
    project: Folder = HERE,
) -> None:
    """Take a stored run away. What the judge remembers of its rows stays.

    Example: noria judge remove judgement:quality@0123456789abcdef
    """
    from noria.apps import judging

    typer.echo(f"removed {judging.remove(opened(project), ref)}")


@group.command("calibrate")
def calibrate_judge(
    which: Which,
    labels: Annotated[Path, typer.Option(help="JSONL: rows as for --file, each with score and labeller.")],
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Hold a judge against people: agreement, what leads it astray, and the labels that correct its numbers.

    One line for each row and labeller. `score` is on the judge's scale; of a pair 1 where the first answer is better,
    0 where the second is, 0.5 for a tie.

    Example: noria judge calibrate quality --labels labels.jsonl
    """
    from noria.apps import judging
    from noria.apps.screen import Screen, show

    platform = opened(project)
    judge = judging.judge_named(platform, which)
    with Screen() as screen:
        ref, found = judging.calibrate(platform, judge, labels, screen)
    if as_json:
        show({"ref": str(ref), **found.told()}, as_json=True)
        return
    _tell_calibration(found)


@group.command("mlflow")
def run_in_mlflow(
    which: Annotated[list[str], typer.Argument(help="Judges of noria.toml, by score or g-eval.")],
    file: Annotated[Path, typer.Option("--file", help="JSONL: question, and answer or --answers.")],
    answers: Annotated[str | None, typer.Option(help="Engine that answers rows which have no answer yet.")] = None,
    experiment: Annotated[str | None, typer.Option(help="MLflow's experiment; else the project's name.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Run judges inside MLflow (mlflow.genai.evaluate), with the results in its UI.

    Each judge runs as it does in noria; a judge by score also as MLflow's own (make_judge), called NAME_mlflow.

    Example: noria judge mlflow quality relevance --file questions.jsonl --answers local
    """
    from noria.apps import judging_mlflow
    from noria.apps.screen import Screen, show, table_of

    platform = opened(project)
    with Screen() as screen:
        told = judging_mlflow.evaluate(platform, which, file, answers, experiment, screen)
    if as_json:
        show(told, as_json=True)
        return
    rows = [
        [name, f"{told['metrics'].get(f'{name}/mean', float('nan')):.3f}", f"{count} of {told['rows']}"]
        for name, count in told["scored"].items()
    ]
    show(None, False, table_of(["judge", "mean (uncalibrated)", "rows with a score"], rows))
    typer.echo(
        f"look: mlflow server --backend-store-uri {told['tracking']} --port 5000   experiment {told['experiment']}"
    )


def _judge_row(each: dict[str, Any]) -> list[str]:
    labels = f"{each['labels']} labels" if each["labels"] else "uncalibrated"
    return [each["judge"], each["method"], each["model"] or "(its engine is away)", labels, ", ".join(each["faults"])]


def _worth(told: dict[str, Any]) -> str:
    """The number of a run that may be told by itself."""
    known = told["calibration"]
    if isinstance(known, str) or "mean" not in known:
        return f"uncalibrated ({told['mean']} by the judge alone)"
    return _bounds(known["mean"])


def _bounds(each: dict[str, Any] | None) -> str:
    return f"{each['value']:.3g}, {each['low']:.3g} to {each['high']:.3g}" if each else "not to be told"


def _numbers(told: dict[str, Any]) -> list[list[str]]:
    known = told["calibration"]
    void = ", ".join(f"{count} {why}" for why, count in told["void"].items())
    rows = [["of", f"{told['of']}: {told['rows']} rows" + (f", void: {void}" if void else "")]]
    if isinstance(known, str):
        rows.append([f"judge alone ({known})", f"mean {told['mean']}, good {told['good']}"])
    else:
        rows += [
            ["people would say: mean", _bounds(known.get("mean"))],
            ["people would say: good", _bounds(known.get("good"))],
            ["judge alone", f"mean {told['mean']}, good {told['good']}"],
            *([f"fault: {name}", seen] for name, seen in known["faults"].items()),
        ]
    if pairs := told.get("pairs"):
        rows.append(["wins, ties, losses", f"{pairs['wins']}, {pairs['ties']}, {pairs['losses']}"])
        rows.append(["decided by the order", f"{pairs['flips']['share']}"])
        if controlled := pairs["length_control"]:
            rows.append(["win rate at equal length", f"{controlled['win_rate']} (intercept {controlled['intercept']})"])
    if "mass" in told:
        rows.append(["probability of the scores", str(told["mass"])])
    cost, answers = told["cost"]["judge"], told["cost"]["answers"]
    tokens = cost["prompt_tokens"] + cost["completion_tokens"]
    rows.append(
        ["cost of judging", f"{cost['calls']} calls ({cost['known']} known), {tokens} tokens, {cost['seconds']} s, "
         f"{cost['cost']:g} in money; {cost['seconds_per_row']} s a row"]
    )  # fmt: skip
    if answers["seconds"] is not None:
        rows.append(
            ["cost of the answers", f"{answers['tokens']} tokens, {answers['seconds']} s, {answers['cost'] or 0:g} in "
             f"money; {answers['seconds_per_row']} s a row"]
        )  # fmt: skip
    return rows


def _tell(ran: Ran) -> None:
    from noria.apps.screen import show, table_of

    show(None, False, table_of(["judged", str(ran.ref)], _numbers(ran.told)))


MEASURES = {
    "kappa": "agreement with one person (kappa)",
    "kappa_people": "of one person with another (kappa)",
    "alpha": "agreement with the judge as one more person (alpha)",
    "alpha_people": "of the people alone (alpha)",
    "bias": "gives more than people do",
    "length": "what length adds, at equal quality",
    "own": "what being by its own model adds",
    "position": "pairs decided by their order",
    "first": "of all pairs, for the first less for the second",
    "steady": "same score when asked in reverse order",
}


def _tell_calibration(found: Calibration) -> None:
    from noria.apps.screen import show, table_of

    people = (
        f"{found.labellers} labellers" if found.labellers > 1 else "one labeller: no agreement among people to compare"
    )
    typer.echo(f"{found.judge}: {found.rows} rows with {found.labels} labels, {found.void} void; {people}")
    rows = []
    for name, each in found.measures.items():
        value = f"{each['value']:.3f}, {each['low']:.3f} to {each['high']:.3f}" if each else "cannot be told"
        rows.append([MEASURES[name], value])
    show(None, False, table_of(["measure", "95 % interval"], rows))
    for name, seen in found.faults.items():
        typer.echo(f"fault, {name}: {seen}")
    if not found.faults:
        typer.echo("no fault was found")
