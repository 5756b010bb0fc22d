"""The stage `report`: champion and candidate answer the same sealed rows through the engine that will serve them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from noria import prompts
from noria.evaluation import metrics, page, parity, sheet, slices
from noria.evaluation.answers import Examiner, recorded, sealed_rows
from noria.stage import Look, Work
from noria.stats.paired import bootstrap
from noria.types import Candidate, Deployment, Example, Interval, Ref, Report, RowScore

OWN_SLICES = ("task", "traffic")
"""Slices that are the task itself; together they are the slice `all`. Every other slice only guards."""


def check(look: Look) -> None:
    """Raise Invalid for a metric that does not exist, before any work is done."""
    place = look.platform.settings.place
    metrics.check(look.task.metrics, place("tasks", look.name, "metrics"))
    metrics.check([look.task.gate.metric], place("tasks", look.name, "gate"))


def params(look: Look) -> JsonValue:
    """What changes the scores beside the two candidates."""
    return {
        "metrics": list(look.task.metrics),
        "max_tokens": look.task.max_tokens,
        "confidence": 1 - look.task.gate.risk,
        "candidate": candidate(look, look.inputs["adapter"].ref).model_dump(mode="json"),
    }


def observes(look: Look) -> JsonValue:
    """The champion that the candidate is measured against.

    Where the candidate serves already, that is the one it replaced, so that asking again changes nothing.
    """
    mine = candidate(look, look.inputs["adapter"].ref)
    opponent = rival(look.platform.deployments.current(look.name), mine)
    return (opponent or candidate(look, None)).model_dump(mode="json")


def rival(live: Deployment | None, mine: Candidate) -> Candidate | None:
    """Whom a candidate is measured against; None stands for the base without an adapter."""
    if live is None:
        return None
    return live.previous if live.champion == mine else live.champion


def candidate(look: Look | Work, adapter: Ref | None) -> Candidate:
    """Exactly what would be served with this adapter on the present base, prompt and index."""
    engine = look.platform.settings.engines[look.task.engine]
    base, quantization = look.platform.engines[engine.kind].base(engine)
    return Candidate(
        task=look.name,
        base=base,
        adapter=adapter,
        engine=look.task.engine,
        quantization=quantization,
        prompt=prompts.definition(look.task.system),
        index=look.inputs["dataset"].ref if look.task.context else None,
    )


def work(work: Work) -> Mapping[str, JsonValue]:
    """Write `report.json`, the answers beside it, a picture of the intervals and a page of it all."""
    new = candidate(work, work.inputs["adapter"].ref)
    old = Candidate.model_validate(work.observed)
    rows = sealed_rows(work.folder("dataset"))
    adapters = [each.adapter for each in (new, old) if each.adapter is not None]
    log = work.platform.settings.state / "logs" / "evaluation.log"
    with Examiner(work.platform, work.task, adapters, log, recorded(work.platform, work.name)) as examiner:
        checks = parity.check(examiner.engine(), work.inputs["adapter"].ref, work.folder("adapter"), work.progress)
        before = examiner.answers(old, rows, work.progress, "champion answers")
        after = examiner.answers(new, rows, work.progress, "candidate answers")
        known = examiner.known
    names = list(dict.fromkeys((work.task.gate.metric, *work.task.metrics)))
    scores = slices.tagged(scored(rows, before, after, names), rows)
    report = Report(
        candidate=new,
        champion=old,
        intervals=intervals(scores, names, 1 - work.task.gate.risk),
        rows=tuple(scores),
        checks=checks,
    )
    (work.out / "report.json").write_text(report.model_dump_json(indent=1))
    _keep_answers(work.out / "answers.jsonl", known, {str(new.ref), str(old.ref)})
    work.platform.draw(report, work.out / "report.png")
    shown = sheet.of_stage(work, report)
    (work.out / "report.html").write_text(page.of(shown))
    return {
        "candidate": str(new.ref),
        "champion": str(old.ref),
        **_summary(report),
        **checks,
        "worse_on": [each.name for each in shown.groups if each.worse],
    }


def scored(
    rows: Sequence[Example], before: Sequence[str], after: Sequence[str], names: Sequence[str]
) -> list[RowScore]:
    """Both answers of every row with their scores."""
    return [
        RowScore(
            id=row.id,
            slice=row.slice,
            conversation=row.conversation,
            question=row.messages[-1].content,
            target=row.target,
            champion=old,
            candidate=new,
            before=metrics.score(old, row.target, names),
            after=metrics.score(new, row.target, names),
        )
        for row, old, new in zip(rows, before, after, strict=True)
    ]


def intervals(rows: Sequence[RowScore], names: Sequence[str], confidence: float) -> dict[str, dict[str, Interval]]:
    """Paired intervals of every metric, for `all` (the task's own rows) and for each slice."""
    groups: dict[str, list[RowScore]] = {"all": [row for row in rows if row.slice in OWN_SLICES]}
    for row in rows:
        groups.setdefault(row.slice, []).append(row)
    return {
        group: {
            name: bootstrap(
                name,
                [row.before[name] for row in members],
                [row.after[name] for row in members],
                [row.conversation for row in members],
                confidence=confidence,
            )
            for name in names
        }
        for group, members in groups.items()
        if members
    }


def load(folder: Path) -> Report:
    """The report in an artifact's folder."""
    return Report.model_validate_json((folder / "report.json").read_text())


def _keep_answers(file: Path, known: Mapping[tuple[str, str], str], refs: set[str]) -> None:
    kept = sorted((ref, prompt, answer) for (ref, prompt), answer in known.items() if ref in refs)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def _summary(report: Report) -> dict[str, JsonValue]:
    overall = report.intervals.get("all", {})
    before: dict[str, JsonValue] = {f"{name}.before": each.before for name, each in overall.items()}
    return {**before, **{f"{name}.after": each.after for name, each in overall.items()}}
