"""Versions of the data as tables for a terminal, and as files to look at; made from the JSON that machines get."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from noria.apps.screen import show, table_of
from noria.errors import Invalid

LONGEST = 400
"""Characters of a text that a terminal is shown; the JSON has all of it."""
_SPREAD = ("least", "p5", "median", "p95", "most", "mean")


def added(told: Mapping[str, Any]) -> None:
    """Print what was found at a place, and what of it is new in noria.toml."""
    rows = [
        [each["name"], each["kind"], str(each["files"]), each.get("path") or each.get("query") or each["url"],
         ", ".join(f"{key} = {column}" for key, column in each.get("map", {}).items()) or "documents only"]
        for each in told["added"]
    ]  # fmt: skip
    show(None, False, table_of(["source", "kind", "files", "from", "map"], rows))
    for each in told["skipped"]:
        typer.echo(f"left out: {each['file']}: {each['because']}")
    if told["written"]:
        typer.echo(f"\nwritten to {told['file']}; next: noria run dataset && noria data card")
    elif not told["added"]:
        typer.echo(f"nothing new: {told['file']} has all of it")


def made(told: Mapping[str, Any]) -> None:
    """Print what `noria data make` made."""
    rows = told["rows"]
    typer.echo(f"{told['dataset']}  {rows['train']} rows to train on, {rows['test']} sealed")
    typer.echo(f"card: {told['file']}")
    typer.echo("next: noria data show && noria data profile --out profile")


def shown(told: Mapping[str, Any]) -> None:
    """Print counts and rows."""
    sides = f": {told['train']} train, {told['test']} test" if "train" in told else ""
    typer.echo(f"{_ref(told)}  {told['rows']} rows{sides}\n")
    _steps(told)
    for row in told["samples"]:
        typer.echo(_row(row))
    if told.get("sealed"):
        typer.echo(
            f"\n{told['sealed']} test rows are sealed: reading them to improve the data would make every later measure "
            "too good. To look all the same: --sealed"
        )


def profiled(told: Mapping[str, Any]) -> None:
    """Print a profile."""
    typer.echo(f"{_ref(told)}\n")
    _counts({"": told["rows"]}, "rows")
    rows = [
        [part, unit, *(f"{spread[name]:g}" for name in _SPREAD)]
        for part, units in told["lengths"].items()
        for unit, spread in units.items()
    ]
    show(None, False, table_of(["length of", "in", *_SPREAD], rows))
    typer.echo()
    _steps(told)
    _counts(
        {name: told[name] for name in ("languages", "origins", "slices", "personal_data") if told.get(name)}, "rows"
    )
    if told["duplicates"]:
        found = [[name, f"{share:.2%}"] for name, share in told["duplicates"].items()]
        show(None, False, table_of(["duplicates found by", "share"], found))
        typer.echo()
    sources = [
        [each["source"], str(each["collected"]), str(each["documents"]), str(len(each["files"]))]
        for each in told.get("sources", [])
    ]
    show(None, False, table_of(["source", "collected", "kept", "files"], sources))
    if told.get("quarantine", {}).get("rows"):
        typer.echo()
        reasons = [[each["source"], str(each["rows"]), each["reason"]] for each in told["quarantine"]["reasons"]]
        show(None, False, table_of(["quarantined of", "rows", "because"], reasons))
    for row in told["samples"]:
        typer.echo("\n" + _row(row))


def compared(told: Mapping[str, Any]) -> None:
    """Print what changed."""
    typer.echo(f"{told['old']}  {told['before']} rows\n{told['new']}  {told['after']} rows\n")
    rows = [
        [what, str(told[what]["rows"]), ", ".join(f"{name} {count}" for name, count in told[what]["by"].items())]
        for what in ("added", "removed", "changed")
    ]
    show(None, False, table_of(["", "rows", "by source"], rows))
    if told.get("moved"):
        typer.echo(f"\n{told['moved']} rows are on another side than before: what was measured on them is void")
    for what, sign in (("added", "+"), ("removed", "-")):
        for row in told[what]["samples"]:
            typer.echo(f"\n{sign} {_row(row).lstrip()}")
    for pair in told["changed"]["samples"]:
        typer.echo(f"\n- {_row(pair['old']).lstrip()}\n+ {_row(pair['new']).lstrip()}")


def drawn(told: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write a profile as JSON with its two pictures; returns the files."""
    from noria.backends import plots

    _made(folder)
    files = [folder / name for name in ("profile.json", "lengths.png", "steps.png")]
    files[0].write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    plots.lengths(told["lengths"], files[1])
    plots.steps(told.get("steps", []), files[2])
    return files


def carded(told: Mapping[str, Any], text: str, folder: Path) -> list[Path]:
    """Write a card; returns the files."""
    _made(folder)
    files = [folder / "README.md", folder / "card.json"]
    files[0].write_text(text, encoding="utf-8")
    files[1].write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return files


def _made(folder: Path) -> None:
    """Make a folder; raises Invalid where a file is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise Invalid(f"'{folder}' is no folder", "several files are written: name a folder with --out") from None


def _ref(told: Mapping[str, Any]) -> str:
    return str(told.get("dataset") or told.get("documents"))


def _steps(told: Mapping[str, Any]) -> None:
    rows = [[each["step"], str(each["in"]), str(each["out"])] for each in told.get("steps", [])]
    show(None, False, table_of(["step", "rows in", "rows out"], rows))
    typer.echo()


def _counts(groups: Mapping[str, Mapping[str, int]], unit: str) -> None:
    rows = [[title, name, str(count)] for title, counts in groups.items() for name, count in counts.items()]
    show(None, False, table_of(["", "", unit], rows))
    typer.echo()


def _row(row: Mapping[str, Any]) -> str:
    """One row, a line for each of its texts."""
    head = [row["id"], row.get("origin") or row.get("source"), row.get("split") or row.get("file")]
    texts: Sequence[tuple[str, str]] = [
        (name, row[name])
        for name in ("question", "context", "answer", "text", "raw_text", "cleaned_text")
        if row.get(name) is not None
    ]
    lines = [f"  {name + ':':13} {_cut(text)}" for name, text in texts]
    lines += ["  (sealed)"] if row.get("sealed") else []
    return "\n".join(["  ".join(str(each) for each in head), *lines])


def _cut(text: str) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= LONGEST else f"{folded[:LONGEST]}… ({len(folded)} characters)"
