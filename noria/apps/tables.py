"""Reports as tables and lines for a terminal, made from the same JSON that machines get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Table = tuple[str, list[str], list[list[str]]]
"""Title, columns and rows."""


def of_report(told: dict[str, Any]) -> Iterator[Table]:
    """The tables of a report, a comparison or a harness report, whichever it is."""
    if "scores" in told:
        columns = ["score", "value", "low", "high", "rows"]
        yield "", columns, [[name, *_numbers(each)] for name, each in sorted(told["scores"].items())]
    elif "pairs" in told:
        yield of_sides(told["rows"])
        for pair in told["pairs"]:
            gains = {name: {each["name"]: each for each in found} for name, found in pair["gains"].items()}
            yield _gains(gains, f"{pair['side']} against {told['sides'][0]}")
            yield from _groups(pair["groups"])
    else:
        yield _gains(told["intervals"], "")
        yield from _groups(told["groups"])


def lines_of(told: dict[str, Any]) -> Iterator[str]:
    """What stands below the tables: verdict, advice and remarks."""
    if decision := told.get("decision"):
        yield f"{decision['verdict']}: {decision['because']}"
    for note in told.get("notes", []):
        yield f"note: {note}"
    pairs = told.get("pairs", [])
    # Of many sides the comparison itself tells what follows.
    for found in (told.get("advice", []), *(pair["advice"] for pair in pairs if len(pairs) == 1)):
        for each in found:
            yield f"advice: {each['fact']}; {each['advice']}"


def of_sides(rows: list[dict[str, Any]]) -> Table:
    """The rows of `noria compare`."""
    columns = ["side", "kind", "metric", "value", "low", "high", "p50", "memory", "cost/1000", "Wh/1000", "verdict",
        "front",
    ]  # fmt: skip
    return "", columns, [
        [
            each["side"], each["kind"], each["metric"], f"{each['value']:.4f}", f"{each['low']:.4f}",
            f"{each['high']:.4f}", _known(each["p50_ms"], "{:.0f} ms"), _known(each["memory_gib"], "{:.2f} GiB"),
            _known(each["cost_per_1000"], "{:.4f}"), _known(each["wh_per_1000"], "{:.2f}"), each["verdict"] or "",
            "enough" if each.get("chosen") else "yes" if each.get("front") else "",
        ]
        for each in rows
    ]  # fmt: skip


def _gains(intervals: dict[str, dict[str, Any]], title: str) -> Table:
    columns = ["slice", "metric", "before", "after", "gain", "low", "high", "rows"]
    return (
        title,
        columns,
        [
            [group, name, f"{each['before']:.4f}", f"{each['after']:.4f}", *_gain(each)]
            for group, metrics in intervals.items()
            for name, each in metrics.items()
        ],
    )


def _groups(groups: list[dict[str, Any]]) -> Iterator[Table]:
    lost = [each for each in groups if each["worse"]]
    if lost:
        columns = ["worse on", "gain", "low", "high", "rows", "p"]
        yield (
            "",
            columns,
            [[f"{each['tag']} = {each['value']}", *_gain(each["interval"]), f"{each['p']:.2g}"] for each in lost],
        )


def _gain(each: dict[str, Any]) -> list[str]:
    return [f"{each['gain']:+.4f}", f"{each['low']:+.4f}", f"{each['high']:+.4f}", str(each["rows"])]


def _numbers(each: dict[str, Any]) -> list[str]:
    return [f"{each['value']:.4f}", f"{each['low']:.4f}", f"{each['high']:.4f}", str(each["rows"])]


def _known(value: float | None, form: str) -> str:
    return "not measured" if value is None else form.format(value)


def printed(told: dict[str, Any]) -> None:
    """Print a report to standard output, for people."""
    import typer

    from noria.apps.screen import show, table_of

    typer.echo(told["report"])
    for title, columns, rows in of_report(told):
        typer.echo(f"\n{title}".rstrip())
        show(None, False, table_of(columns, rows))
    lines = [*lines_of(told)]
    typer.echo("\n".join(["", *lines] if lines else []))
