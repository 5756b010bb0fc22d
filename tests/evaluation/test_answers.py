"""From answers to a report: what is measured, what is kept, and what is refused before work starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from typer.testing import CliRunner

from noria import adapters
from noria.apps import start
from noria.apps.cli import app
from noria.backends.fake import FakeEngines
from noria.datasets.rows import write_examples
from noria.errors import Invalid
from noria.evaluation import metrics, report
from noria.evaluation.answers import Examiner, Reply, keep, recorded
from noria.evaluation.metrics import Answered
from noria.ports import Platform
from noria.stage import Look, Work
from noria.types import Artifact, Candidate, Caps, Cycle, Example, Message, Ref, Report, Run
from noria.wiring import open_project

AT = datetime(2026, 11, 1, tzinfo=UTC)


class Silent:
    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        pass


def row(number: int, target: str = "It ships on Monday.", of: str = "task") -> Example:
    return Example(
        id=f"{number:016x}", origin="faq", slice=of, conversation=f"c{number // 2}", context=None, target=target,
        messages=(Message(role="user", content=f"Question {number}?"),), split="test",
    )  # fmt: skip


def project(folder: Path, *changes: tuple[str, str]) -> Platform:
    start.make(folder)
    file = folder / "noria.toml"
    text = file.read_text().replace("context = { source", "# context = { source")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    answers = {f"Question {number}?": "It ships on Monday." if number % 3 else "I cannot say." for number in range(20)}
    return replace(open_project(folder), engines={"llamacpp": FakeEngines(answers)})


PRICED = ("slots = 4", "slots = 4\nprice = { prompt = 1.0, completion = 2.0 }")


def candidate() -> Candidate:
    base = Ref(kind="base", name="fake", digest="0" * 16)
    return Candidate(task="helpdesk", base=base, adapter=None, engine="local", quantization="F32", prompt="1" * 16)


def examine(
    platform: Platform, rows: Sequence[Example], known: dict[tuple[str, str], Reply], likelihood: bool = False
) -> list[Answered]:
    _, task = platform.settings.task(None)
    with Examiner(platform, task, [], platform.settings.state / "engine.log", known) as examiner:
        return examiner.answered(candidate(), rows, Silent(), "answers", likelihood=likelihood)


def test_answers_come_with_their_time_tokens_and_cost(tmp_path: Path) -> None:
    platform = project(tmp_path, PRICED)
    found = examine(platform, [row(0), row(1)], {})
    assert [each.answer for each in found] == ["I cannot say.", "It ships on Monday."]
    for each in found:
        assert each.seconds is not None
        assert each.seconds > 0
        assert each.completion_tokens == len(each.answer.split())
        assert each.prompt_tokens is not None
        assert each.cost == pytest.approx((each.prompt_tokens + 2 * each.completion_tokens) / 1e6)
        assert each.target == "It ships on Monday."


class Variant(FakeEngines):
    """Engines whose answers depend on what is asked beside."""

    @property
    def caps(self) -> Caps:
        return replace(super().caps, batch_invariant=False)


@pytest.mark.parametrize(("kind", "most"), [("lora", 4), ("model", 1)])
def test_a_whole_model_is_in_memory_once(tmp_path: Path, kind: Literal["lora", "model"], most: int) -> None:
    platform = project(tmp_path, ("slots = 4", "slots = 4\nthreads = 4"))
    platform = replace(platform, engines={"llamacpp": Variant()})
    folder = platform.lake.scratch("made")
    (folder / "answers.json").write_text("{}")
    adapters.mark(folder, kind)
    made = platform.lake.commit(folder, "adapter", "helpdesk")
    _, task = platform.settings.task(None)
    with Examiner(platform, task, [made], platform.settings.state / "engine.log") as examiner:
        assert len(examiner._seats) == most


def test_targets_have_their_log_probability(tmp_path: Path) -> None:
    # The fake gives every word a tenth of a nat for each letter.
    [found] = examine(project(tmp_path), [row(0, "one three")], {}, likelihood=True)
    assert found.logprob == pytest.approx(-0.8)
    assert found.target_tokens == 2
    assert metrics.find("perplexity").value([found]) == pytest.approx(2.718281828**0.4)


def store(platform: Platform, number: int, write: str | dict[tuple[str, str], Reply]) -> None:
    """A finished report of an earlier cycle with these answers."""
    folder = platform.lake.scratch(f"{number:016x}")
    if isinstance(write, str):
        (folder / "answers.jsonl").write_text(write)
    else:
        keep(folder / "answers.jsonl", write, {str(candidate().ref)}, measured=True)
    ref = platform.lake.commit(folder, "report", "helpdesk")
    cycle = Cycle(id=f"cycle-{number}", task="helpdesk", began=AT)
    platform.runs.save(cycle)
    run = Run(
        key=f"{number:016x}",
        stage="report",
        task="helpdesk",
        cycle=cycle.id,
        output=ref,
        seconds=1.0,
        peak_mb=1.0,
        at=AT,
    )
    platform.runs.record(run, Artifact(ref=ref, parents=(), run_key=run.key))


def test_a_known_answer_keeps_the_time_it_took(tmp_path: Path) -> None:
    platform = project(tmp_path)
    known: dict[tuple[str, str], Reply] = {}
    examine(platform, [row(0)], known)
    [key] = known
    store(platform, 1, {key: Reply("As before.", 1.25, 7, 2), ("candidate:other@0", "p"): Reply("not kept")})
    again = recorded(platform, "helpdesk")
    assert again == {key: Reply("As before.", 1.25, 7, 2)}
    [found] = examine(platform, [row(0)], again)
    assert (found.answer, found.seconds, found.prompt_tokens, found.completion_tokens) == ("As before.", 1.25, 7, 2)


def test_answers_of_before_times_were_kept_are_asked_again_where_time_counts(tmp_path: Path) -> None:
    platform = project(tmp_path)
    store(platform, 1, json.dumps([str(candidate().ref), "prompt", "As before."]) + "\n")
    assert recorded(platform, "helpdesk") == {(str(candidate().ref), "prompt"): Reply("As before.")}
    assert recorded(platform, "helpdesk", measured=True) == {}


@pytest.mark.parametrize(
    ("metric", "fact", "hint"),
    [
        ("perplexity", "engine 'local' of kind 'llamacpp' does not give", 'kind = "vllm"'),
        ("log_likelihood", "engine 'local' of kind 'llamacpp' does not give", "leave 'log_likelihood' out"),
        ("ece", "a confidence with each answer", "leave 'ece' out"),
        ("cost", "engine 'local' has none", "price = {"),
        ("support", "the task has none", "tasks.helpdesk.context"),
        ("token_f2", "there is no metric 'token_f2'", "token_f1"),
    ],
)
def test_what_a_task_cannot_have_is_refused_before_work(tmp_path: Path, metric: str, fact: str, hint: str) -> None:
    project(tmp_path, ("[tasks.helpdesk]", f'[tasks.helpdesk]\nmetrics = ["token_f1", "{metric}"]'))
    platform = open_project(tmp_path)
    name, task = platform.settings.task(None)
    with pytest.raises(Invalid) as caught:
        report.check(Look(platform, name, task, {}))
    assert fact in caught.value.fact
    assert hint in caught.value.hint
    assert caught.value.where.startswith("noria.toml:")


def test_reports_compare_every_metric_on_every_slice() -> None:
    rows = [row(number, of="task" if number < 40 else "general") for number in range(60)]
    before = [
        Answered("It ships on Tuesday.", each.target, seconds=0.5 + 0.01 * number) for number, each in enumerate(rows)
    ]
    after = [
        Answered("It ships on Monday.", each.target, seconds=0.4 + 0.01 * number) for number, each in enumerate(rows)
    ]
    wanted = [metrics.find(name) for name in ("token_f1", "bleu", "latency", "latency_p50", "exact_match")]
    found = report.intervals(rows, before, after, wanted, 0.9)
    assert set(found) == {"all", "task", "general"}
    for group, count in (("all", 40), ("task", 40), ("general", 20)):
        for metric in wanted:
            each = found[group][metric.name]
            assert (each.name, each.rows, each.confidence) == (metric.name, count, 0.9)
            assert each.higher_is_better is metric.higher_is_better
            assert each.before_bounds is not None
            assert each.after_bounds is not None
    assert found["all"]["bleu"].after == pytest.approx(metrics.find("bleu").value(after[:40]))
    assert found["all"]["latency"].gain == pytest.approx(-0.1)
    assert found["all"]["latency"].high < 0
    assert found["all"]["exact_match"].p_value is None
    scores = report.scored(rows, before, after, wanted)
    assert scores[3].before["latency"] == pytest.approx(0.53)
    assert scores[3].after["token_f1"] == 1.0


METRICS = '["token_f1", "bleu", "perplexity", "latency_p95", "cost", "characters", "f1_macro"]'


def examined(platform: Platform, rows: list[Example]) -> Report:
    """The stage `report` on an adapter that knows the answers, from a dataset in the lake."""
    name, task = platform.settings.task(None)
    folder = platform.lake.scratch("d" * 16)
    write_examples(rows, folder / "test.parquet")
    dataset = platform.lake.commit(folder, "dataset", name)
    folder = platform.lake.scratch("a" * 16)
    (folder / "answers.json").write_text(
        json.dumps({f"Question {number}?": "It ships on Monday." for number in range(40)})
    )
    (folder / "probes.json").write_text("[]")
    adapter = platform.lake.commit(folder, "adapter", name)
    inputs = {ref.kind: Artifact(ref=ref, parents=(), run_key="f" * 16) for ref in (dataset, adapter)}
    look = Look(platform, name, task, inputs)
    report.check(look)
    out = platform.lake.scratch("b" * 16)
    told = report.work(Work(platform, name, task, "cycle", inputs, report.observes(look), out, Silent()))
    assert told["bleu.after"] == 100.0
    assert (out / "report.png").stat().st_size > 1000
    return report.load(out)


@pytest.mark.slow
def test_the_stage_reports_every_metric_and_keeps_what_was_measured(tmp_path: Path) -> None:
    platform = project(tmp_path, PRICED, ("[tasks.helpdesk]", f"[tasks.helpdesk]\nmetrics = {METRICS}"))
    found = examined(platform, [row(number) for number in range(40)])
    assert list(found.intervals["all"]) == json.loads(METRICS)
    assert found.intervals["all"]["token_f1"].low > 0
    assert found.intervals["all"]["perplexity"].gain == 0.0
    assert found.rows[0].after["characters"] == len("It ships on Monday.")


def test_rows_without_ground_truth_are_refused_before_an_answer_is_made(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="needs ground truth, and 1 of 2 sealed rows have no target"):
        examined(project(tmp_path), [row(0), row(1, target="")])


def test_metrics_are_listed() -> None:
    runner = CliRunner()
    told = json.loads(runner.invoke(app, ["evaluate", "metrics", "--json"]).stdout)["metrics"]
    assert [each["name"] for each in told] == metrics.names()
    [latency] = [each for each in told if each["name"] == "latency_p95"]
    assert (latency["needs"], latency["low"], latency["high"], latency["better"]) == ("nothing", 0, None, "lower")
    assert "formula for Russian" in runner.invoke(app, ["evaluate", "metrics", "flesch_reading_ease_ru"]).stdout
    assert isinstance(runner.invoke(app, ["evaluate", "metrics", "bleuu"]).exception, Invalid)
