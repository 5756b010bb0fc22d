"""What a person sees of long work, and how results and errors are printed."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from noria.errors import NoriaError
from noria.stage import Step

PIPE_COLUMNS = 240
TENTHS = 4
"""Without a terminal, progress is told this often per piece of work."""


class Screen:
    """Port `Progress` on a terminal (bars with rate and time left) or, without one, as a few plain lines.

    All of it goes to standard error; standard output holds results only. Use it as a context manager.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bars: Progress | None = None
        self._ids: dict[str, TaskID] = {}
        self._told: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", style="dim"),
            )
            self._bars = Progress(*columns, console=self._console, transient=True)
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        """Show how far the work called `label` is."""
        if self._bars is None:
            self._tell(label, done, total, note)
            return
        if label not in self._ids:
            self._ids[label] = self._bars.add_task(label, total=total, note=note)
        self._bars.update(self._ids[label], completed=done, total=total, note=note)

    def started(self, stage: str, number: int, total: int) -> None:
        """Announce a stage."""
        self._told.clear()
        self.line(f"[bold]{number}/{total} {stage}[/bold]")

    def finished(self, step: Step) -> None:
        """Tell what a stage made, and clear its bars."""
        self.clear()
        took = "unchanged, not run again" if step.skipped else f"{step.seconds:.1f} s"
        self.line(f"      {step.artifact.ref}  ({took})")

    def clear(self) -> None:
        """Take away the bars of work that is done."""
        if self._bars is not None:
            for identity in self._ids.values():
                self._bars.remove_task(identity)
            self._ids.clear()

    def line(self, text: str) -> None:
        """One line for people."""
        self._console.print(text, soft_wrap=True)

    def _tell(self, label: str, done: float, total: float, note: str) -> None:
        part = int(TENTHS * done / total) if total else TENTHS
        if self._told.get(label, -1) < part and (done or note):
            self._told[label] = part
            self.line(f"      {label}: {done:.0f}/{total:.0f} {note}".rstrip())


def show(value: Any, as_json: bool, table: Table | None = None) -> None:
    """Print a result to standard output: JSON for machines, the table (or plain lines) for people."""
    if as_json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n")
        return
    # Nobody's window is that of a pipe.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    if table is not None:
        console.print(table)
    else:
        console.print(value, soft_wrap=True, markup=False)


def table_of(columns: list[str], rows: list[list[str]], title: str = "") -> Table:
    """A plain table; its first column, which says what a row is, is never cut."""
    head = [Column(name, no_wrap=not number) for number, name in enumerate(columns)]
    table = Table(*head, title=title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def complain(error: NoriaError) -> None:
    """Print one error: the fact, where it came from, what to type next."""
    console = Console(stderr=True, highlight=False)
    console.print(f"noria: {error.fact}", style="red", markup=False, soft_wrap=True)
    if error.where:
        console.print(f"  at {error.where}", markup=False, soft_wrap=True)
    if error.hint:
        console.print(f"  try: {error.hint}", markup=False, soft_wrap=True)
