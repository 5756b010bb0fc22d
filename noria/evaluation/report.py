"""The stage `report`: champion and candidate answer the same sealed rows through the engine that will serve them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from noria import adapters, prompts
from noria.errors import Invalid
from noria.evaluation import metrics, page, parity, sheet, slices
from noria.evaluation.answers import Examiner, keep, recorded, sealed_rows
from noria.evaluation.metrics import Answered, Metric
from noria.stage import Look, Work
from noria.stats.paired import compare
from noria.types import Candidate, Deployment, Example, Interval, Metrics, Ref, Report, RowScore

OWN_SLICES = ("task", "traffic")
"""Slices that are the task itself; together they are the slice `all`. Every other slice only guards."""


def check(look: Look) -> None:
    """Raise Invalid for a metric that does not exist or that this task cannot have, before any work is done."""
    where = {
        **dict.fromkeys(look.task.measured, look.platform.settings.place("tasks", look.name, "gate")),
        **dict.fromkeys(look.task.metrics, look.platform.settings.place("tasks", look.name, "metrics")),
    }
    for name, place in where.items():
        metrics.check([name], place)
        if fault := _lacking(look, metrics.find(name)):
            raise Invalid(f"metric '{name}' needs {fault[0]}", fault[1], where=place)


def _lacking(look: Look, metric: metrics.Metric) -> tuple[str, str] | None:
    """What a metric reads and this task does not have, and what can be done about it."""
    engine = look.platform.settings.engines[look.task.engine]
    if "logprob" in metric.reads and not look.platform.engines[engine.kind].caps.prompt_logprobs:
        return (
            f"log-probabilities of targets, which engine '{look.task.engine}' of kind '{engine.kind}' does not give",
            f"use an engine that does, such as kind = \"vllm\", or leave '{metric.name}' out",
        )
    if "confidence" in metric.reads and not look.platform.engines[engine.kind].caps.heads:
        return "a confidence with each answer, which chat engines do not give", f"leave '{metric.name}' out"
    if "cost" in metric.reads and not engine.price.known:
        return (
            f"prices, and engine '{look.task.engine}' has none",
            f"price = {{ prompt = 0.1, completion = 0.4 }} in [engines.{look.task.engine}]",
        )
    if "context" in metric.reads and look.task.context is None:
        return "the context of each answer, and the task has none", f"add tasks.{look.name}.context"
    return None


def params(look: Look) -> JsonValue:
    """What changes the scores beside the two candidates."""
    return {
        "metrics": list(look.task.measured),
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
        quantization=adapters.quantization(look.platform.lake, adapter, quantization),
        prompt=prompts.definition(look.task.system, adapters.wording_of(look.platform.lake, adapter)),
        index=look.inputs["dataset"].ref if look.task.context else None,
    )


def work(work: Work) -> Mapping[str, JsonValue]:
    """Write `report.json`, the answers beside it, a picture of the intervals and a page of it all."""
    new = candidate(work, work.inputs["adapter"].ref)
    old = Candidate.model_validate(work.observed)
    rows = sealed_rows(work.folder("dataset"))
    named = [each.adapter for each in (new, old) if each.adapter is not None]
    log = work.platform.settings.state / "logs" / "evaluation.log"
    wanted = [metrics.find(name) for name in work.task.measured]
    reads = {field for metric in wanted for field in metric.reads}
    _check_targets(rows, wanted)
    measured = not reads.isdisjoint(("seconds", "cost", "prompt_tokens", "completion_tokens", "confidence"))
    known = recorded(work.platform, work.name, measured=measured)
    with Examiner(work.platform, work.task, named, log, known) as examiner:
        checks = {"trained": 0.0}
        if examiner.served(new) is not None:
            checks = parity.check(examiner.engine(), work.inputs["adapter"].ref, work.folder("adapter"), work.progress)
        ask = partial(examiner.answered, rows=rows, progress=work.progress, likelihood="logprob" in reads)
        before, after = ask(old, label="champion answers"), ask(new, label="candidate answers")
    report = Report(
        candidate=new,
        champion=old,
        intervals=intervals(rows, before, after, wanted, 1 - work.task.gate.risk),
        rows=tuple(slices.tagged(scored(rows, before, after, wanted), rows)),
        checks=checks,
    )
    (work.out / "report.json").write_text(report.model_dump_json(indent=1))
    keep(work.out / "answers.jsonl", known, {str(new.ref), str(old.ref)}, measured=measured)
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
    rows: Sequence[Example], before: Sequence[Answered], after: Sequence[Answered], wanted: Sequence[Metric]
) -> list[RowScore]:
    """Both answers of every row with their scores, each row by itself."""

    def scores(answers: Sequence[Answered]) -> list[Metrics]:
        columns = {metric.name: metric.each(answers) for metric in wanted}
        return [{name: round(values[row], 6) for name, values in columns.items()} for row in range(len(answers))]

    return [
        RowScore(
            id=row.id,
            slice=row.slice,
            conversation=row.conversation,
            question=row.messages[-1].content,
            target=row.target,
            champion=old.answer,
            candidate=new.answer,
            before=of_old,
            after=of_new,
        )
        for row, old, new, of_old, of_new in zip(rows, before, after, scores(before), scores(after), strict=True)
    ]


def intervals(
    rows: Sequence[Example],
    before: Sequence[Answered],
    after: Sequence[Answered],
    wanted: Sequence[Metric],
    confidence: float,
) -> dict[str, dict[str, Interval]]:
    """Paired intervals of every metric, for `all` (the task's own rows) and for each slice."""
    if not rows:
        return {}
    groups: dict[str, list[int]] = {"all": [place for place, row in enumerate(rows) if row.slice in OWN_SLICES]}
    for place, row in enumerate(rows):
        groups.setdefault(row.slice, []).append(place)
    # Classes are those of all rows, so that the sums of a slice mean what they mean in `all`.
    sums = {metric.name: (metric.sums(before), metric.sums(after)) for metric in wanted}
    return {
        group: {
            metric.name: compare(
                metric.name,
                sums[metric.name][0][places],
                sums[metric.name][1][places],
                [rows[place].conversation for place in places],
                metric.statistic,
                confidence=confidence,
                higher_is_better=metric.higher_is_better,
            )
            for metric in wanted
        }
        for group, places in groups.items()
        if places
    }


def load(folder: Path) -> Report:
    """The report in an artifact's folder."""
    return Report.model_validate_json((folder / "report.json").read_text())


def _check_targets(rows: Sequence[Example], wanted: Sequence[Metric]) -> None:
    """Raise Invalid where a metric needs ground truth and a row has none."""
    needing = [metric.name for metric in wanted if metric.needs == "target"]
    if needing and (empty := [row for row in rows if not row.target]):
        raise Invalid(
            f"metric '{needing[0]}' needs ground truth, and {len(empty)} of {len(rows)} sealed rows have no target, "
            f"the first of them '{empty[0].messages[-1].content[:80]}'",
            "label these rows, or use metrics that need none: noria evaluate metrics",
        )


def _summary(report: Report) -> dict[str, JsonValue]:
    overall = report.intervals.get("all", {})
    before: dict[str, JsonValue] = {f"{name}.before": each.before for name, each in overall.items()}
    return {**before, **{f"{name}.after": each.after for name, each in overall.items()}}
