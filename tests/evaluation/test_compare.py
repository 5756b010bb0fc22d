"""Comparisons on the fake engine: the same rows, nothing asked twice, nothing made up; reports listed and removed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noria import prompts
from noria.apps import evaluations, start, tables
from noria.backends.fake import FakeEngine, FakeEngines
from noria.errors import Conflict, Invalid, NotFound
from noria.evaluation import comparison, harness, history, metrics, report
from noria.evaluation.answers import sealed_rows
from noria.evaluation.compare import compare
from noria.evaluation.harness import HarnessReport
from noria.evaluation.metrics import Answered
from noria.ports import Platform
from noria.settings import EngineSettings
from noria.types import (
    Artifact,
    Candidate,
    Cycle,
    Decision,
    Deployment,
    Example,
    Message,
    Ref,
    Report,
    Run,
    Scored,
    digest_of,
    new_id,
)
from noria.wiring import open_project

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ROWS = 30
PRICED = (
    '\n[engines.other]\nkind = "llamacpp"\nmodel = "other"\nprice = { prompt = 1.0, completion = 2.0 }\n\n[[sources]]'
)


class Quiet:
    """Counts what is asked for."""

    def __init__(self) -> None:
        self.asked: dict[str, float] = {}

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        self.asked[label] = max(self.asked.get(label, 0), total)


def question(number: int) -> str:
    return f"What is the number {number}?"


def commit(platform: Platform, kind: str, files: dict[str, str | list[dict[str, object]]]) -> Ref:
    folder = platform.lake.scratch(f"{kind}-{digest_of(str(files))}")
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).write_text(content)
        else:
            pq.write_table(pa.Table.from_pylist(content), folder / name)
    return platform.lake.commit(folder, kind, "helpdesk")


def turned(platform: Platform, outputs: Sequence[tuple[str, Ref, dict[str, object]]]) -> None:
    """Record a cycle with these products."""
    cycle = Cycle(id=new_id(NOW), task="helpdesk", began=NOW, ended=NOW)
    platform.runs.save(cycle)
    for stage, ref, meta in outputs:
        key = digest_of([stage, str(ref)])
        made = Artifact.model_validate({"ref": ref, "parents": (), "run_key": key, "meta": meta})
        run = Run(key=key, stage=stage, task="helpdesk", cycle=cycle.id, output=ref, seconds=1, peak_mb=1, at=NOW)
        platform.runs.record(run, made)


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    start.make(tmp_path / "shop")
    file = tmp_path / "shop" / "noria.toml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("context")]
    file.write_text("\n".join(lines).replace("[[sources]]", PRICED, 1) + "\n")
    platform = replace(open_project(tmp_path / "shop"), engines={"llamacpp": FakeEngines()})
    rows = [
        Example(
            id=digest_of(number), origin="source:faq", slice="task", conversation=f"c{number}",
            messages=(Message(role="user", content=question(number)),), context=None, target=f"number {number} it is",
            split="test",
        )
        for number in range(ROWS)
    ]  # fmt: skip
    sealed = [
        {**row.model_dump(), "messages": json.dumps([each.model_dump() for each in row.messages])} for row in rows
    ]
    turned(platform, [("dataset", commit(platform, "dataset", {"test.parquet": sealed}), {})])
    return platform


def trained(platform: Platform, right: int = ROWS, text: str = "number {} it is") -> Candidate:
    """A candidate whose adapter knows the answers to the first rows, with its report and its release."""
    answers = {question(number): text.format(number) for number in range(right)}
    adapter = commit(platform, "adapter", {"answers.json": json.dumps(answers)})
    base, quantization = platform.engines["llamacpp"].base(platform.settings.engines["local"])
    champion = Candidate(
        task="helpdesk", base=base, adapter=None, engine="local", quantization=quantization,
        prompt=prompts.definition(platform.settings.tasks["helpdesk"].system),
    )  # fmt: skip
    candidate = champion.model_copy(update={"adapter": adapter})
    rows = sealed_rows(platform.lake.path(history_dataset(platform)))
    asked = [row.messages[-1].content for row in rows]
    old = [Answered(text, target=row.target) for text, row in zip(asked, rows, strict=True)]
    new = [Answered(answers.get(text, "?"), target=row.target) for text, row in zip(asked, rows, strict=True)]
    wanted = [metrics.find("token_f1")]
    made = Report(
        candidate=candidate, champion=champion, intervals=report.intervals(rows, old, new, wanted, 0.95),
        rows=tuple(report.scored(rows, old, new, wanted)), checks={},
    )  # fmt: skip
    ref = commit(platform, "report", {"report.json": made.model_dump_json()})
    release = commit(platform, "release", {"decision.json": str(right)})
    turned(
        platform,
        [("report", ref, {}), ("release", release, {"verdict": "promote", "because": "better", "evidence": {}})],
    )
    return candidate


def history_dataset(platform: Platform) -> Ref:
    return next(
        run.output for _, runs in platform.runs.cycles("helpdesk", 99) for run in runs if run.stage == "dataset"
    )


@pytest.mark.slow
def test_the_table_has_what_was_promised_and_null_where_nothing_was_measured(platform: Platform) -> None:
    candidate, seen = trained(platform), Quiet()
    found = compare(platform, "helpdesk", ["base", str(candidate.ref), "engine:other"], seen)
    rows = comparison.rows(found)
    assert {*rows[0]} >= {
        "candidate", "kind", "metric", "value", "low", "high", "p50_ms", "memory_gib", "cost_per_1000", "wh_per_1000",
        "verdict",
    }  # fmt: skip
    by_side = {row["side"]: row for row in rows if row["metric"] == "token_f1"}
    assert [by_side[side]["kind"] for side in ("base", str(candidate.ref), "engine:other")] == ["base", "lora", "base"]
    assert by_side["base"]["verdict"] is None
    assert by_side[str(candidate.ref)]["verdict"] == "better"
    assert by_side[str(candidate.ref)]["value"] == 1.0
    assert by_side["engine:other"]["verdict"] == "inconclusive"
    assert by_side["base"]["cost_per_1000"] is None
    cost = by_side["engine:other"]["cost_per_1000"]
    assert isinstance(cost, float)
    assert cost > 0
    assert all(row["wh_per_1000"] is None and row["memory_gib"] is None for row in rows)
    # What the report holds is not asked for again.
    assert seen.asked == {"engine:other answers": ROWS, "timing": 8}


@pytest.mark.slow
def test_a_comparison_is_kept_listed_drawn_and_not_asked_again(platform: Platform) -> None:
    candidate = trained(platform)
    found = compare(platform, "helpdesk", ["base", "engine:other"], Quiet(), timed=0)
    artifact = comparison.keep(platform, found, 0.0)
    again = Quiet()
    compare(platform, "helpdesk", ["engine:other", str(candidate.ref)], again, timed=0)
    assert again.asked == {}
    other = comparison.keep(platform, compare(platform, "helpdesk", ["engine:other", "base"], again, timed=0), 0.0)
    listed = evaluations.listed(platform, "helpdesk")
    assert [each["kind"] for each in listed] == ["report", "comparison", "comparison"]
    assert [each["report"] for each in listed[1:]] == [str(other.ref), str(artifact.ref)]
    assert listed[0]["verdict"] == "promote"
    told = evaluations.told(platform, artifact.ref)
    assert told["rows"] == comparison.rows(found)
    assert next(iter(tables.of_report(told)))[2]
    assert evaluations.drawn(platform, artifact.ref) == comparison.drawn(found)
    evaluations.remove(platform, other.ref)
    assert [each["report"] for each in evaluations.listed(platform, "helpdesk")[1:]] == [str(artifact.ref)]


def test_with_recorded_nothing_is_asked_and_common_rows_count(platform: Platform) -> None:
    candidate, seen = trained(platform, right=10), Quiet()
    found = compare(platform, "helpdesk", ["base", str(candidate.ref)], seen, recorded=True)
    assert seen.asked == {}
    assert found.measured == {}
    assert len(found.pairs[0].rows) == ROWS
    with pytest.raises(Conflict, match="0 sealed rows"):
        compare(platform, "helpdesk", ["base", "engine:other"], seen, recorded=True)


def test_what_cannot_be_asked_any_more_is_told_with_its_reason(platform: Platform) -> None:
    candidate = trained(platform)
    gone = candidate.model_copy(update={"engine": "old"})
    kept = next(history.reports(platform, "helpdesk"))
    few = kept.model_copy(update={"candidate": gone, "rows": kept.rows[:1]})
    turned(platform, [("report", commit(platform, "report", {"report.json": few.model_dump_json()}), {})])
    with pytest.raises(Conflict, match=r"engine 'old' is not in noria\.toml"):
        compare(platform, "helpdesk", ["base", str(gone.ref)], Quiet())


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        (["base"], Invalid, "two sides"),
        (["base", "champion"], Invalid, "the same candidate"),
        (["base", "engine:othr"], NotFound, "engine:othr"),
        (["base", "chmpion"], NotFound, "chmpion"),
        (["base", "candidate:helpdesk@0123456789abcdef"], NotFound, "no report"),
        (["base", "a:b"], Invalid, "not a ref"),
    ],
)
def test_a_word_that_names_nothing_is_refused(
    platform: Platform, words: list[str], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        compare(platform, "helpdesk", words, Quiet())


def test_a_report_is_shown_with_its_verdict_and_the_evidence_of_a_release_is_kept(platform: Platform) -> None:
    candidate = trained(platform)
    ref = evaluations.ref_of(platform, None, None)
    told = evaluations.told(platform, ref)
    assert told["decision"]["verdict"] == "promote"
    assert told["candidate"] == str(candidate.ref)
    assert told["intervals"]["all"]["token_f1"]["after"] == 1.0
    assert "promote" in evaluations.drawn(platform, ref)
    assert any("noria compare" in line for line in told["repeat"])
    live = Deployment(
        task="helpdesk", version=1, champion=candidate, previous=None, cycle="", actor="a", at=NOW,
        decision=Decision(verdict="promote", because="better", evidence={}),
    )  # fmt: skip
    platform.deployments.swap(live)
    with pytest.raises(Conflict, match="release 1"):
        evaluations.remove(platform, ref)
    with pytest.raises(Invalid, match="is no report"):
        evaluations.remove(platform, history_dataset(platform))
    with pytest.raises(NotFound):
        evaluations.told(platform, Ref(kind="report", name="helpdesk", digest="0" * 16))


def test_harness_reports_are_kept_and_the_latest_value_of_each_score_counts(platform: Platform) -> None:
    ref = "candidate:helpdesk@0123456789abcdef"

    def put(name: str, minute: int, candidate: str, **values: float) -> Ref:
        scores = {f"{name}.{task}": Scored(value=value, low=0, high=1, rows=20) for task, value in values.items()}
        made = HarnessReport(
            harness=name, version="1", task="helpdesk", model="helpdesk", candidate=candidate,
            at=NOW.replace(minute=minute), settings={"tasks": [*values]}, scores=scores, notes=("a <note>",),
        )  # fmt: skip
        return harness.store(platform, made, {}, 0.0).ref

    first = put("lm-eval", 1, ref, a=0.1, b=0.2)
    put("lm-eval", 2, ref, a=0.3)
    put("lm-eval", 3, "candidate:helpdesk@fedcba9876543210", a=0.9)
    last = put("garak", 4, ref, c=0.5)
    found = harness.latest(platform, "helpdesk", ref)
    assert {name: score.value for name, score in found.items()} == {"lm-eval.a": 0.3, "lm-eval.b": 0.2, "garak.c": 0.5}
    assert harness.latest(platform, "helpdesk", "candidate:helpdesk@" + "0" * 16) == {}
    assert [each["kind"] for each in evaluations.listed(platform, "helpdesk")] == ["lm-eval"] * 3 + ["garak"]
    assert evaluations.told(platform, first)["scores"]["lm-eval.b"]["value"] == 0.2
    page = evaluations.drawn(platform, last)
    assert "garak.c" in page
    assert "a &lt;note&gt;" in page
    evaluations.remove(platform, first)
    assert {*harness.latest(platform, "helpdesk", ref)} == {"lm-eval.a", "garak.c"}


def test_engines_are_closed(platform: Platform) -> None:
    started: list[FakeEngine] = []

    class Watched(FakeEngines):
        def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> FakeEngine:
            started.append(super().start(settings, adapters, log))
            return started[-1]

    compare(replace(platform, engines={"llamacpp": Watched()}), "helpdesk", ["base", "engine:other"], Quiet(), timed=5)
    assert len(started) == 4
    assert not any(engine.alive() for engine in started)
