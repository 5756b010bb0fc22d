"""Medians and ranges of what was measured, and the budgets of design.md beside them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Figures = dict[str, dict[str, Any]]
"""By phase: `void` reasons, and for every figure its median, lowest and highest value."""


@dataclass(frozen=True)
class Check:
    """A budget: `value` is None where it could not be measured; `most` is False where `limit` is the least."""

    name: str
    value: float | None
    limit: float
    most: bool
    source: str

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "ok" if (self.value <= self.limit if self.most else self.value >= self.limit) else "MISSED"


def summary(results: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]) -> dict[str, Figures]:
    """Medians and ranges over the rounds that count."""
    return {name: {letter: _spread(rows) for letter, rows in phases.items()} for name, phases in results.items()}


def _spread(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    good = [row for row in rows if not row["void"]]
    spread: dict[str, Any] = {"void": [row["void"] for row in rows if row["void"]]}
    for name in good[0] if good else ():
        values = [row[name] for row in good if isinstance(row[name], int | float)]
        if values:
            spread[name] = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return spread


def void(found: Mapping[str, Figures], names: Sequence[str]) -> list[str]:
    """Measurements of these servers that do not count."""
    return [
        f"{name} {letter}: {reason}"
        for name, phases in found.items()
        if name in names
        for letter, figures in phases.items()
        for reason in figures["void"]
    ]


class Table:
    """The medians by server, phase and figure; None where there is none."""

    def __init__(self, found: Mapping[str, Figures]) -> None:
        self.found = found

    def get(self, server: str, letter: str, figure: str, which: str = "median") -> float | None:
        value = self.found.get(server, {}).get(letter, {}).get(figure, {}).get(which)
        return None if value is None else float(value)

    def ratio(self, server: str, letter: str, figure: str, to: str) -> float | None:
        mine, other = self.get(server, letter, figure), self.get(to, letter, figure)
        return _share(mine, other)

    def added(self, server: str, figure: str) -> float | None:
        """Microseconds on top of the mock's own, at 50 requests a second."""
        mine, direct = self.get(server, "D", figure), self.get("direct", "D", figure)
        return None if mine is None or direct is None or server == "direct" else mine - direct

    def memory(self, server: str) -> float | None:
        """Highest PSS after any phase but that of the slow readers, in MB."""
        found = [self.get(server, letter, "pss_mb", "high") for letter in self.found.get(server, {}) if letter != "S"]
        return max((value for value in found if value is not None), default=None)


def checks(found: Mapping[str, Figures]) -> list[Check]:
    """The budgets for noria, in the order of design.md; those of the issue and of facts/gateway.md after them."""
    table, request = Table(found), "cpu_us_per_request"

    def times(peer: str, letter: str = "A") -> float | None:
        return table.ratio(peer, letter, request, "noria")

    def faults(letter: str, *figures: str) -> float | None:
        phase = found.get("noria", {}).get(letter)
        if phase is None:
            return None
        return len(phase["void"]) + sum(table.get("noria", letter, figure, "high") or 0.0 for figure in figures)

    offered = table.get("direct", "G", "events_per_s")
    delivered = table.get("noria", "G", "events_per_s")
    reached, gone = table.get("noria", "S", "reached"), table.get("noria", "S", "cancelled", "low")
    return [
        Check("requests per CPU second, times nginx", times("nginx"), 0.35, False, "design.md 7"),
        Check("requests per CPU second, times vllm-router", times("vllm-router"), 1.2, False, "design.md 7"),
        Check("requests per CPU second, times LiteLLM", times("litellm"), 130, False, "design.md 7"),
        Check("added p50 at 50 req/s, us", table.added("noria", "p50_us"), 600, True, "design.md 7"),
        Check("added p99 at 50 req/s, us", table.added("noria", "p99_us"), 1000, True, "design.md 7"),
        Check(
            "CPU per streamed chunk, times nginx", table.ratio("noria", "C", "cpu_us_per_chunk", "nginx"), 1.6, True,
            "design.md 7",
        ),
        Check("memory of the worker, MB", table.memory("noria"), 130, True, "design.md 7"),
        Check("500 streams at 100 chunks/s: faulty rounds", faults("G"), 0, True, "issue"),
        Check("500 streams: chunks/s, share of direct", _share(delivered, offered), 0.9, False, "facts 3"),
        Check("slow readers that vanish: requests left over", faults("S", "stuck"), 0, True, "issue"),
        Check("slow readers that vanish: share cancelled", _share(gone, reached), 1, False, "issue"),
        Check("requests per CPU second, times smg", times("smg"), 2.5, False, "facts 3"),
        Check("54 KB: requests per CPU second, times vllm-router", times("vllm-router", "E"), 1, False, "facts 3"),
    ]  # fmt: skip


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def plain(checked: Sequence[Check]) -> list[dict[str, Any]]:
    """For JSON."""
    return [{**asdict(each), "verdict": each.verdict} for each in checked]


def text(setting: Mapping[str, Any], found: Mapping[str, Figures], checked: Sequence[Check]) -> str:
    """Tables in Markdown, which read well on a terminal too."""
    table = Table(found)
    versions = ", ".join(f"{name} {version}" for name, version in setting["versions"].items())
    lines = [f"{setting['machine']}; {setting['rounds']} rounds, medians (lowest-highest); {versions}", ""]
    phases = {letter for figures in found.values() for letter in figures}
    if phases & set("AED"):
        lines += [*_grid(_REQUESTS, [_requests(table, name) for name in found]), ""]
    if phases & set("BCFGS"):
        lines += [*_grid(_STREAMS, [_streams(table, name) for name in found]), ""]
    if any(each.value is not None for each in checked):
        rows = [
            [each.name, _number(each.value), f"{'<=' if each.most else '>='} {each.limit:g}", each.verdict, each.source]
            for each in checked
        ]
        lines += [*_grid(["noria", "measured", "budget", "", "from"], rows), ""]
    lines += [f"VOID: {reason}" for reason in void(found, list(found))]
    return "\n".join(lines).rstrip()


_REQUESTS = [
    "server", "CPU us/req", "times nginx", "req per CPU s", "wall req/s", "54 KB: CPU us/req", "p50 us", "p99 us",
    "added p50", "added p99", "PSS MB",
]  # fmt: skip
_STREAMS = [
    "server", "CPU us/chunk", "times nginx", "burst chunks/s", "burst CPU us/chunk", "500 streams: chunks/s",
    "CPU us/chunk", "500 numbered: chunks/s", "KB per slow reader", "cancelled", "left over",
]  # fmt: skip


def _requests(table: Table, name: str) -> list[str]:
    cpu = table.get(name, "A", "cpu_us_per_request")
    return [
        name, _range(table, name, "A", "cpu_us_per_request"),
        _number(table.ratio(name, "A", "cpu_us_per_request", "nginx")), _number(1e6 / cpu if cpu else None),
        _number(table.get(name, "A", "rps")), _range(table, name, "E", "cpu_us_per_request"),
        _number(table.get(name, "D", "p50_us")), _number(table.get(name, "D", "p99_us")),
        _number(table.added(name, "p50_us")), _number(table.added(name, "p99_us")), _number(table.memory(name)),
    ]  # fmt: skip


def _streams(table: Table, name: str) -> list[str]:
    return [
        name, _range(table, name, "C", "cpu_us_per_chunk"),
        _number(table.ratio(name, "C", "cpu_us_per_chunk", "nginx")), _number(table.get(name, "B", "events_per_s")),
        _range(table, name, "B", "cpu_us_per_chunk"), _number(table.get(name, "F", "events_per_s")),
        _range(table, name, "F", "cpu_us_per_chunk"), _number(table.get(name, "G", "events_per_s")),
        _number(table.get(name, "S", "kb_per_reader")), _number(table.get(name, "S", "cancelled")),
        _number(table.get(name, "S", "stuck")),
    ]  # fmt: skip


def _range(table: Table, name: str, letter: str, figure: str) -> str:
    middle, low, high = (table.get(name, letter, figure, which) for which in ("median", "low", "high"))
    if middle is None:
        return "-"
    return f"{_number(middle)} ({_number(low)}-{_number(high)})"


def _number(value: float | None) -> str:
    """Three figures, or all before the point."""
    if value is None:
        return "-"
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 2)}f}"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return [f"| {' | '.join(line)} |" for line in lines]
