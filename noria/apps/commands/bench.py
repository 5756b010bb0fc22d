"""`noria bench`: the same questions to several engines and precisions, in turn; how fast, how large, how good."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.apps.commands.options import HERE, AsJson, Folder
from noria.errors import Invalid, NotFound

if TYPE_CHECKING:
    from noria.ports import Platform


class _Measuring(typer.core.TyperGroup):
    """Without the name of a command `run` is meant: noria bench local --json."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=_Measuring,
    help="Measure engines and precisions on the same questions; without a command's name `run` is meant.\n\n"
    "Example: noria bench local --precisions q8_0,q4_0 --scenario chat",
)

Run = Annotated[str, typer.Argument(help="A run's id (its first letters are enough), `latest`, or a .json file.")]


@group.command("run")
def run(
    engines: Annotated[
        list[str] | None,
        typer.Argument(help="Names in noria.toml, kinds (llamacpp, vllm, transformers) or URLs; all of noria.toml."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="This model in place of the engines' own.")] = None,
    precisions: Annotated[
        str,
        typer.Option(help="With commas: GGUF kinds (made here) for llama.cpp, float32 bfloat16 float16 for others."),
    ] = "",
    scenario: Annotated[
        str, typer.Option(help="With commas: lab, lesson, chat, needle, embeddings, traffic, or a FILE.jsonl.")
    ] = "lab",
    concurrency: Annotated[str, typer.Option(help="Requests at once, with commas; else the scenario's.")] = "",
    requests: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Of each round; else each prompt once.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=2, max=65_536, help="Of an answer; else the scenario's.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Times each row is measured, engines in turn.")] = 3,
    cache: Annotated[bool, typer.Option("--cache", help="Let llama.cpp answer from prompts it remembers.")] = False,
    natural: Annotated[
        bool, typer.Option("--natural", help="Answers end where the model ends them, not at --max-tokens.")
    ] = False,
    apart: Annotated[bool, typer.Option("--apart", help="One engine after the other, never side by side.")] = False,
    no_quality: Annotated[bool, typer.Option("--no-quality", help="Do not compare the weights.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the speeds into this .svg or .png.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the run into this .json file, too.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Ask the same of every engine and precision, round by round; every answer is checked before its time counts.

    Example: noria bench llamacpp transformers --model smollm2-135m-instruct --precisions q8_0,q4_1,float32
    """
    from noria.apps import bench_runs, benching
    from noria.apps.screen import Screen
    from noria.backends import bench_plot
    from noria.backends.clock import SystemClock

    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise Invalid(f"'{plot.name}' is neither an SVG nor a PNG file", "name it bench.svg")
    platform, folder = _place(project)
    order = benching.Order(
        tuple(engines or ()), model, _words(precisions.lower()), _words(scenario), _levels(concurrency), requests,
        max_tokens, rounds, cache, natural, apart, not no_quality,
    )  # fmt: skip
    with Screen() as screen:
        told = benching.bench(order, platform, platform.clock if platform else SystemClock(), screen)
    bench_runs.save(told, folder)
    if out is not None:
        bench_runs.write(told, out)
    if plot is not None:
        bench_plot.draw(told, plot)
    _print(told, as_json)


@group.command("list")
def list_runs(as_json: AsJson = False, project: Folder = HERE) -> None:
    """Benchmarks that were run here.

    Example: noria bench list
    """
    from noria.apps import bench_runs
    from noria.apps.screen import show, table_of

    found = bench_runs.listed(_place(project)[1])
    rows = [
        [each["id"], each["at"], ", ".join(each["engines"]), ", ".join(each["scenarios"]), str(each["rows"]),
         str(each["void"] or "")]
        for each in found
    ]  # fmt: skip
    show({"runs": found}, as_json, table_of(["id", "at", "engines", "scenarios", "rows", "void"], rows))


@group.command("show")
def show_run(
    name: Run = "latest",
    markdown: Annotated[bool, typer.Option("--markdown", help="As a table for a page.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the speeds into this .svg or .png.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """The rows of a run.

    Example: noria bench show latest --plot bench.svg
    """
    from noria.apps import bench_runs
    from noria.backends import bench_plot

    told = bench_runs.load(name, _place(project)[1])
    if plot is not None:
        bench_plot.draw(told, plot)
    if markdown:
        typer.echo(bench_runs.markdown(told), nl=False)
        return
    _print(told, as_json)


@group.command("compare")
def compare_runs(before: Run, after: Run = "latest", as_json: AsJson = False, project: Folder = HERE) -> None:
    """Rows that two runs have in common, as ratios.

    Example: noria bench compare 3f2a latest
    """
    from noria.apps import bench_runs
    from noria.apps.screen import show, table_of

    folder = _place(project)[1]
    told = bench_runs.compared(bench_runs.load(before, folder), bench_runs.load(after, folder))
    columns = ["engine", "precision", "scenario", "at once", "tok/s before", "after", "ratio", "TTFT", "peak", ""]
    rows = [
        [each["engine"], each["precision"], each["scenario"], str(each["concurrency"]), _said(each["before"]),
         _said(each["after"]), _said(each["tokens_per_s"]), _said(each["ttft_ms"]), _said(each["peak_gib"]),
         "the rounds overlap" if each["within_spread"] else ""]
        for each in told["rows"]
    ]  # fmt: skip
    show(told if as_json else None, as_json, table_of(columns, rows))
    if not as_json:
        for note in told["notes"]:
            typer.echo(f"note: {note}")


@group.command("remove")
def remove_run(name: Run, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Remove a run for good.

    Example: noria bench remove 3f2a
    """
    from noria.apps import bench_runs
    from noria.apps.screen import show

    gone = bench_runs.remove(name, _place(project)[1])
    show({"removed": gone} if as_json else f"run {gone} is removed", as_json)


def _place(project: Path) -> tuple[Platform | None, Path]:
    """The project's platform, where there is one, and the folder of its runs: a model by itself needs no project."""
    from noria.wiring import open_project

    try:
        platform = open_project(project.resolve())
    except NotFound:
        return None, project.resolve() / ".noria" / "bench"
    return platform, platform.settings.state / "bench"


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))


def _levels(text: str) -> tuple[int, ...]:
    found = []
    for each in _words(text):
        if not each.isdecimal() or not 1 <= int(each) <= 256:
            raise Invalid(f"'{each}' is no number of requests at once", "--concurrency 1,4,8 (256 at the most)")
        found.append(int(each))
    return tuple(found)


def _said(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _print(told: dict[str, Any], as_json: bool) -> None:
    from noria.apps import bench_runs
    from noria.apps.screen import show, table_of

    if as_json:
        show(told, as_json=True)
        return
    rows = [bench_runs.cells(row) for row in told["rows"]]
    kept = [number for number in range(len(bench_runs.COLUMNS)) if any(row[number] for row in rows)]
    columns = [bench_runs.COLUMNS[number] for number in kept]
    show(None, False, table_of(columns, [[row[number] for number in kept] for row in rows]))
    for note in told["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(f"run {told['id']} on {told['machine']['chip']}, {told['machine']['cores']} cores")
