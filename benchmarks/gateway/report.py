"""Medians, ranges, and the budgets of design.md beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Figures = dict[str, dict[str, Any]]
"""By phase: `void` reasons, and for every figure its median, lowest and highest value."""


def summary(results: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Figures]:
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


def void(found: dict[str, Figures], names: Sequence[str]) -> list[str]:
    """Measurements of these servers that do not count."""
    return [
        f"{name} {letter}: {reason}"
        for name, phases in found.items()
        if name in names
        for letter, figures in phases.items()
        for reason in figures["void"]
    ]


def checks(found: dict[str, Figures]) -> list[dict[str, Any]]:
    return []


def text(setting: dict[str, Any], found: dict[str, Figures], checked: Sequence[dict[str, Any]]) -> str:
    lines = []
    for name, phases in found.items():
        for letter, figures in phases.items():
            if "n" not in figures:
                continue
            parts = []
            for key in (
                "cpu_us_per_request",
                "cpu_us_per_chunk",
                "rps",
                "events_per_s",
                "p50_us",
                "p99_us",
                "pss_mb",
                "kb_per_reader",
                "stuck",
                "cancelled",
            ):
                if key in figures:
                    f = figures[key]
                    parts.append(f"{key} {f['median']:.1f} ({f['low']:.1f}-{f['high']:.1f})")
            lines.append(f"{name:12} {letter} " + ", ".join(parts))
    lines += void(found, list(found))
    return "\n".join(lines)
