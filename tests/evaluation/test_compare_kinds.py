"""`noria compare` of all kinds on the fake engine: who takes part, who is made, what is measured, what it counts as."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from test_compare import ROWS, Quiet, commit, history_dataset, question, trained, turned
from test_compare import platform as platform
from typer.testing import CliRunner

from noria import adapters, prompts
from noria.apps import making
from noria.apps.cli import app
from noria.backends import openai
from noria.backends.fake import FakeEngine, FakeEngines
from noria.backends.plots import comparison as draw
from noria.datasets import looks
from noria.datasets.rows import write_examples
from noria.errors import Invalid, NotFound
from noria.evaluation import comparison
from noria.evaluation.compare import Meters, compare
from noria.evaluation.sides import kind_of
from noria.ports import Encode, Platform
from noria.settings import EngineSettings
from noria.types import (
    Candidate,
    Example,
    Form,
    Generation,
    Message,
    Ref,
    Report,
    Shot,
    Wording,
    digest_of,
)


class Learner(FakeEngine):
    """Answers `number N it is` once it has been shown how: where examples stand in the prompt."""

    def answer(
        self, messages: Sequence[Message], adapter: Ref | None, max_tokens: int, stop: Sequence[str], how: Form = Form()
    ) -> Generation:
        given = super().answer(messages, adapter, max_tokens, stop, how)
        if not any(message.role == "assistant" for message in messages):
            return given
        number = "".join(letter for letter in messages[-1].content if letter.isdigit())
        return replace(given, text=f"number {number} it is")


class Learners(FakeEngines):
    """Starts such engines, and fails for one that is called broken."""

    def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> FakeEngine:
        if settings.model == "broken":
            raise Invalid("the file is no model")
        tables = {str(ref): json.loads((folder / "answers.json").read_text()) for ref, folder in adapters.items()}
        return Learner(self.base(settings)[0].name, {"": {}, **tables}, settings.context)


class Words:
    digest = "words"

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        return [0] * sum(2 + len(message.content.split()) for message in messages)

    def answer(self, text: str) -> list[int]:
        return [0] * len(text.split())

    def sent(self) -> Callable[[], Encode]:
        def encode(
            asked: Sequence[Sequence[Mapping[str, Any]]], answers: Sequence[str]
        ) -> tuple[list[list[int]], list[list[int]]]:
            told = [[Message.model_validate(message) for message in turns] for turns in asked]
            return [self.prompt(turns) for turns in told], [self.answer(text) for text in answers]

        return lambda: encode


class Noted:
    def log(
        self, experiment: str, name: str, run: Mapping[str, JsonValue], curves: Mapping[str, Sequence[float]],
        files: Sequence[Path], parent: str | None = None,
    ) -> str:  # fmt: skip
        return "run"


@pytest.fixture
def learners(platform: Platform) -> Platform:
    return replace(platform, engines={"llamacpp": Learners()}, tokenizer=lambda model: Words(), tracking=Noted())


def worded(
    platform: Platform, wording: Wording, meta: Mapping[str, object] = {"recipe": {"kind": "few-shot"}}
) -> Candidate:
    """A candidate of words with a report, as a cycle leaves it."""
    folder = platform.lake.scratch("worded")
    adapters.write_wording(folder, wording)
    adapter = platform.lake.commit(folder, "adapter", "helpdesk")
    base, quantization = platform.engines["llamacpp"].base(platform.settings.engines["local"])
    system = platform.settings.tasks["helpdesk"].system
    plain = Candidate(
        task="helpdesk", base=base, adapter=None, engine="local", quantization=quantization,
        prompt=prompts.definition(system),
    )  # fmt: skip
    made = plain.model_copy(update={"adapter": adapter, "prompt": prompts.definition(system, wording)})
    report = Report(candidate=made, champion=plain, intervals={}, rows=(), checks={"trained": 0.0})
    turned(
        platform,
        [
            ("adapter", adapter, dict(meta)),
            ("report", commit(platform, "report", {"report.json": report.model_dump_json()}), {}),
        ],
    )
    return made


SHOT = Shot(id="0" * 16, messages=(Message(role="user", content="1?"),), context=None, target="number 1 it is")


@pytest.mark.slow
def test_everybody_takes_part_and_who_cannot_is_told(learners: Platform) -> None:
    tuned, shown = trained(learners, right=3), worded(learners, Wording(shots=(SHOT,)))
    engines = {**learners.settings.engines, "broken": EngineSettings(kind="llamacpp", model="broken")}
    platform = replace(learners, settings=learners.settings.model_copy(update={"engines": engines}))
    levels = iter(range(10_000))
    found = compare(
        platform,
        "helpdesk",
        [],
        Quiet(),
        timed=5,
        meters=Meters(lambda: next(levels) / 100, lambda: next(levels) * 36.0),
    )
    assert found.sides[0].word == "champion"
    assert {side.word for side in found.sides} == {"champion", "few-shot", "lora", "engine:other"}
    assert found.notes == ("'engine:broken' is left out: the file is no model",)
    rows = {str(row["side"]): row for row in comparison.rows(found) if row["metric"] == "token_f1"}
    assert rows["few-shot"]["value"] == 1.0
    assert (rows["few-shot"]["candidate"], rows["lora"]["candidate"]) == (str(shown.ref), str(tuned.ref))
    assert rows["few-shot"]["verdict"] == "better"
    assert [word for word, row in rows.items() if row["front"]] == ["few-shot"]
    assert rows["few-shot"]["chosen"]
    for row in rows.values():
        # Memory was read before and after each start and each answer, energy around each answer, always one further.
        assert isinstance(row["memory_gib"], float)
        assert row["memory_gib"] > 0
        assert row["wh_per_1000"] == pytest.approx(1000 * 3 * 36 / 3600, rel=0.7)
    told = comparison.told(found)
    assert told["front"]["members"] == [str(shown.ref)]  # type: ignore[call-overload, index]
    assert "left out" in str(told["notes"])
    page = comparison.drawn(found)
    assert "Which is enough" in page


def test_the_kind_of_words_that_were_made_elsewhere(learners: Platform) -> None:
    for wording, kind in ((Wording(shots=(SHOT,)), "few-shot"), (Wording(system="Be brief."), "prompt")):
        assert kind_of(learners, worded(learners, wording, {"origin": "hub"})) == kind


def test_an_answer_names_the_class_that_stands_in_it(platform: Platform) -> None:
    classes = tuple(f"number {number} it is" for number in range(ROWS))
    task = platform.settings.tasks["helpdesk"].model_copy(
        update={"kind": "classify", "classes": classes, "metrics": ("accuracy",)}
    )
    task = task.model_copy(update={"gate": task.gate.model_copy(update={"metric": "accuracy"})})
    platform = replace(platform, settings=platform.settings.model_copy(update={"tasks": {"helpdesk": task}}))
    candidate = trained(platform, text="I say number {} it is.")
    found = compare(platform, "helpdesk", ["base", str(candidate.ref)], Quiet(), recorded=True)
    assert [scores[0].value for scores in found.scores] == [0.0, 1.0]


def test_an_hour_of_the_machine_is_a_price(learners: Platform) -> None:
    engines = {
        name: table.model_copy(update={"price": table.price.model_copy(update={"hour": 3600.0})})
        for name, table in learners.settings.engines.items()
    }
    platform = replace(learners, settings=learners.settings.model_copy(update={"engines": engines}))
    found = compare(platform, "helpdesk", ["base", "engine:other"], Quiet(), timed=6)
    own, other = (found.measured[side.ref] for side in found.sides)
    assert own.cost_per_1000 is not None
    assert other.cost_per_1000 is not None
    assert own.cost_per_1000 > 0
    assert found.front is not None
    assert found.front.by == "cost"


@pytest.mark.slow
def test_only_the_kinds_that_are_wanted_and_one_that_is_missing_is_made(learners: Platform) -> None:
    trained(learners, right=3)
    train = [
        Example(
            id=digest_of(["train", number]), origin="source:faq", slice="task", conversation=f"t{number}", context=None,
            messages=(Message(role="user", content=question(100 + number)),), target=f"number {100 + number} it is",
            split="train",
        )
        for number in range(24)
    ]  # fmt: skip
    folder = learners.lake.path(history_dataset(learners))
    write_examples(train, folder / "train.parquet")
    asked: list[str] = []

    def make(kind: str) -> Candidate:
        asked.append(kind)
        return making.made(learners, "helpdesk", kind, Quiet())

    found = compare(learners, "helpdesk", [], Quiet(), timed=0, kinds=["few-shot", "engine:other"], make=make)
    assert asked == ["few-shot"]
    assert [(side.word, side.kind) for side in found.sides] == [
        ("champion", "base"), ("engine:other", "base"), ("few-shot", "few-shot"),
    ]  # fmt: skip
    assert found.scores[2][0].value == 1.0
    # The cycle that made it has ended, and the same again is found.
    assert all(cycle.ended for cycle, _ in learners.runs.cycles("helpdesk", 99))
    again = compare(learners, "helpdesk", [], Quiet(), timed=0, kinds=["few-shot"], make=make)
    assert again.sides[1].ref == found.sides[2].ref
    with pytest.raises(NotFound, match="no such recipe"):
        compare(learners, "helpdesk", [], Quiet(), kinds=["fewshot"], make=make)
    with pytest.raises(NotFound, match="no engine 'gpu'"):
        compare(learners, "helpdesk", [], Quiet(), kinds=["few-shot@gpu"], make=make)
    with pytest.raises(Invalid, match="recipe encoder is for tasks of kind"):
        compare(learners, "helpdesk", [], Quiet(), kinds=["encoder@other"], make=make)
    with pytest.raises(Invalid, match="no system prompt to try"):
        compare(learners, "helpdesk", [], Quiet(), kinds=["prompt"], make=make)


def test_a_comparison_is_a_look_at_the_sealed_rows_once_for_the_same_candidates(platform: Platform) -> None:
    trained(platform)

    def counted() -> int:
        return looks.sealed(platform, "helpdesk").looks

    before = counted()
    for words, expected in ((["base", "engine:other"], 1), (["engine:other", "base"], 1), ([], 2)):
        comparison.keep(platform, compare(platform, "helpdesk", words, Quiet(), timed=0), 0.0)
        assert counted() == before + expected


@pytest.mark.slow
def test_a_picture_of_the_front(learners: Platform, tmp_path: Path) -> None:
    worded(learners, Wording(shots=(SHOT,)))
    found = compare(learners, "helpdesk", [], Quiet(), timed=6)
    points, across, up = comparison.points(found)
    assert (across, up) == ("p50 latency, ms", "token_f1")
    assert len(points) == len(found.sides)
    for name in ("front.svg", "front.png"):
        draw(points, across, up, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    draw(points, across, up, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "front.svg").read_bytes()
    with pytest.raises(Invalid, match="neither an SVG"):
        draw(points, across, up, tmp_path / "front.pdf")
    with pytest.raises(Invalid, match="nothing was measured"):
        draw([], across, up, tmp_path / "front.svg")


@pytest.mark.slow
def test_a_server_outside_is_off_without_its_key_and_asked_by_its_models_name(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(platform)
    with pytest.raises(Invalid, match="OUTSIDE_KEY"):
        making.with_baseline(platform, "http://127.0.0.1:9/v1", None, "OUTSIDE_KEY")
    monkeypatch.setenv("OUTSIDE_KEY", "fake")
    outside = FakeEngine("big", {"": {question(number): f"number {number} it is" for number in range(ROWS)}}, 4096)
    try:
        more = making.with_baseline(platform, outside.endpoint.url, "big", "OUTSIDE_KEY")
        found = compare(more, "helpdesk", [], Quiet(), timed=5, also=["engine:baseline"])
        assert [side.kind for side in found.sides][-1] == "attached"
        assert found.scores[-1][0].value == 1.0
        assert found.measured[found.sides[-1].ref].memory_gib is None
        wrong = making.with_baseline(platform, outside.endpoint.url, "bigger", "OUTSIDE_KEY")
        with pytest.raises(Invalid, match="does not list the model 'bigger'"):
            openai.open().base(wrong.settings.engines["baseline"])
    finally:
        outside.close()


def test_the_command_takes_a_task_or_sides(platform: Platform) -> None:
    runner = CliRunner()
    folder = str(platform.settings.root)
    failed = runner.invoke(app, ["compare", "helpdesk", "--baseline", "http://127.0.0.1:9/v1", "--project", folder])
    assert isinstance(failed.exception, Invalid)
    assert "is off" in failed.exception.fact
    failed = runner.invoke(app, ["compare", "helpdsk", "--project", folder])
    assert isinstance(failed.exception, Invalid)
