"""A report as one HTML file that needs nothing beside it: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from noria.evaluation.advice import Advice
from noria.evaluation.measured import Measured
from noria.evaluation.page import sections
from noria.evaluation.page.markup import Html, document, el, join, styles
from noria.evaluation.slices import Group, first_metric
from noria.types import Decision, Report


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that a report's page shows; what is not known is left out or said to be unknown.

    `refs` are names and refs of what was compared, beside candidate and champion; `repeat` are commands.
    """

    report: Report
    groups: Sequence[Group] = ()
    advice: Sequence[Advice] = ()
    decision: Decision | None = None
    measured: Mapping[str, Measured] = field(default_factory=dict)
    refs: Sequence[tuple[str, str]] = ()
    repeat: Sequence[str] = ()


def of(sheet: Sheet) -> str:
    """The page of one report."""
    report = sheet.report
    metric = first_metric(report)
    title = f"{report.candidate.task}: candidate {report.candidate.ref.digest}"
    overall = report.intervals.get("all", {}).get(metric or "")
    lead = el("p", f"{overall.name} {overall.before:.3f} to {overall.after:.3f}, gain {sections.told(overall)}, "
              f"{overall.rows} rows") if overall else None  # fmt: skip
    sides = {
        "champion": sheet.measured.get(str(report.champion.ref)),
        "candidate": sheet.measured.get(str(report.candidate.ref)),
    }
    return _page(
        title,
        el("h1", title),
        sections.verdict(sheet.decision),
        lead,
        sections.advices(sheet.advice),
        sections.gains(report),
        sections.grouped(sheet.groups),
        sections.examples(report, metric) if metric else None,
        sections.costs(sides),
        sections.provenance([*_refs(report), *sheet.refs], report.checks),
        sections.again(sheet.repeat) if sheet.repeat else None,
    )


def assembled(title: str, *parts: Html | None) -> str:
    """A page of other parts, in the same style."""
    return _page(title, el("h1", title), *parts)


def _refs(report: Report) -> list[tuple[str, str]]:
    found = []
    for name, side in (("candidate", report.candidate), ("champion", report.champion)):
        found.append((name, str(side.ref)))
        found.append((f"{name}'s adapter", str(side.adapter) if side.adapter else "none"))
    found.append(("base", str(report.candidate.base)))
    found.append(("engine", f"{report.candidate.engine} ({report.candidate.quantization})"))
    if report.champion.base != report.candidate.base or report.champion.engine != report.candidate.engine:
        found.append(("champion's base", str(report.champion.base)))
        found.append(("champion's engine", f"{report.champion.engine} ({report.champion.quantization})"))
    found.append(("prompt", report.candidate.prompt))
    if report.champion.prompt != report.candidate.prompt:
        found.append(("champion's prompt", report.champion.prompt))
    if report.candidate.index is not None:
        found.append(("index of its context", str(report.candidate.index)))
    return found


def _page(title: str, *parts: Html | None) -> str:
    css = (files("noria.evaluation.page") / "style.css").read_text()
    return document(title, styles(css), el("main", join(*parts)))
