"""From what people said of answers to lights: labels, thresholds, and what the gateway is told."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from noria.apps import start
from noria.apps.cli import app
from noria.backends.fake import FakeEngines
from noria.deployment.fleet import Fleet
from noria.errors import Conflict, Invalid
from noria.evaluation.lights import REFERENCE, Row, calibrate, calibrated, labelled
from noria.gateway.light import Lights
from noria.ports import Platform
from noria.settings import LightSettings, TaskSettings
from noria.stats import trust
from noria.traffic.segments import SegmentWriter
from noria.types import Feedback, Interaction, Snapshot, new_id
from noria.wiring import open_project

START = datetime(2026, 11, 1, tzinfo=UTC)
NEW, OLD = "candidate:helpdesk@0123456789abcdef", "candidate:helpdesk@fedcba9876543210"


def answered(number: int, **more: object) -> Interaction:
    at = START + timedelta(seconds=number)
    found = Interaction(
        id=new_id(at), at=at, task="helpdesk", served_by=NEW, user="u" * 16, conversation=str(number),
        messages=({"role": "user", "content": f"Question {number}?"},), context="The manual.", answer="Press it.",
        finish_reason="stop", status=200, error=None, stream=False, prompt_tokens=1, completion_tokens=1,
        first_token_seconds=None, seconds=0.1, trainable=True, support=0.5, light="uncalibrated",
    )  # fmt: skip
    return found.model_copy(update=more)


def said(of: Interaction, metric: str, value: float | None = None, correction: str | None = None) -> Feedback:
    return Feedback(
        id=new_id(of.at), at=of.at, interaction=of.id, metric=metric, value=value, correction=correction, user=of.user
    )


def traffic(labels: int, others: int, seed: int = 1, **more: object) -> tuple[list[Interaction], list[Feedback]]:
    """Answers with even scores, of which those below 0.3 are wrong."""
    drawn = random.Random(seed)
    found = [answered(number, support=drawn.random(), **more) for number in range(labels + others)]
    return found, [said(each, "correct", float((each.support or 0) >= 0.3)) for each in found[:labels]]


def log(platform: Platform, interactions: Sequence[Interaction], feedback: Sequence[Feedback]) -> None:
    with SegmentWriter(platform.settings.state / "segments") as writer:
        for each in (*interactions, *feedback):
            writer.append(each.model_dump_json().encode())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    start.make(tmp_path)
    file = tmp_path / "noria.toml"
    file.write_text(f"{file.read_text()}\n[tasks.helpdesk.lights]\nwrong = 0.1\nred = 0.5\nrisk = 0.1\n")
    return tmp_path


@pytest.fixture
def platform(project: Path) -> Platform:
    return open_project(project)


@pytest.mark.parametrize(
    ("notes", "wrong"),
    [
        ([("thumbs", 1.0, None)], False),
        ([("thumbs", -1.0, None)], True),
        ([("thumbs", 0.0, None)], True),
        ([("correct", 1.0, None)], False),
        ([("correct", 0.0, None)], True),
        ([("correct", 0.0, None), ("correct", 1.0, None)], False),
        ([("correction", None, "Pull it.")], True),
        ([("correction", None, " press IT!")], False),
        ([("correction", None, "Pull it."), ("thumbs", 1.0, None)], True),
        ([("thumbs", 0.5, None)], None),
        ([("politeness", 1.0, None)], None),
        ([], None),
    ],
)
def test_what_was_said_becomes_a_label(notes: list[tuple[str, float | None, str | None]], wrong: bool | None) -> None:
    one = answered(1)
    found = labelled([one], [said(one, *note) for note in notes])
    assert found == ({} if wrong is None else {one.id: wrong})


def test_labels_become_thresholds_that_the_gateway_is_told(platform: Platform) -> None:
    """The whole way: from the log through the ledger into a snapshot, and out of it as colours."""
    log(platform, *traffic(200, 300))
    [found] = calibrate(platform, "helpdesk")
    assert (found.served_by, found.labels, found.needed) == (NEW, 200, 22)
    assert found.green is not None
    assert found.red is not None
    assert found.red.threshold <= found.green.threshold < 0.4
    assert found.green.bound <= 0.1
    assert found.red.bound >= 0.5

    published: list[Snapshot] = []
    fleet = Fleet(
        replace(platform, engines={"llamacpp": FakeEngines()}), published.append, lambda version, url: True,
        lambda line: None, lambda: 0.0,
    )  # fmt: skip
    try:
        fleet.poll()
        fleet.poll()
    finally:
        fleet.close()
    rules = TaskSettings.model_validate(published[-1].routes["helpdesk"].task).lights
    assert rules is not None
    lights = Lights(rules)
    assert [lights.colour(score, NEW) for score in (0.01, 0.95, None)] == ["red", "green", "uncalibrated"]
    assert lights.colour(0.95, OLD) == "uncalibrated"


def test_other_shares_than_those_that_were_calibrated_void_the_thresholds(platform: Platform) -> None:
    log(platform, *traffic(200, 300))
    calibrate(platform, "helpdesk")
    lights = LightSettings()
    assert platform.runs.find(trust.key("helpdesk", lights)) is not None
    assert platform.runs.find(trust.key("helpdesk", lights.model_copy(update={"confirm": 0.5}))) is not None
    changes: list[dict[str, float]] = [{"wrong": 0.05}, {"red": 0.6}, {"risk": 0.05}]
    for change in changes:
        assert platform.runs.find(trust.key("helpdesk", lights.model_copy(update=change))) is None
    assert platform.runs.find(trust.key("other", lights)) is None


def test_each_candidate_is_calibrated_by_its_own_answers(platform: Platform) -> None:
    many, few = traffic(150, 150), traffic(30, 0, seed=2, served_by=OLD)
    log(platform, [*many[0], *few[0]], [*many[1], *few[1]])
    new, old = calibrate(platform, "helpdesk")
    assert (new.served_by, new.known) == (NEW, True)
    assert (old.served_by, old.labels <= 30) == (OLD, True)


def test_too_few_labels_change_nothing(platform: Platform) -> None:
    log(platform, *traffic(12, 200))
    with pytest.raises(Conflict, match=r"12 labelled answers.*they need 22"):
        calibrate(platform, "helpdesk")
    assert platform.runs.find(trust.key("helpdesk", LightSettings())) is None


def test_answers_without_a_light_of_failures_and_of_other_tasks_do_not_count(platform: Platform) -> None:
    found, notes = traffic(120, 0)
    spoiled: list[dict[str, object]] = [
        {"light": None}, {"status": 502}, {"task": "other"}, {"support": None}, {"answer": ""},
    ]  # fmt: skip
    log(platform, [each.model_copy(update=spoiled[number % 5]) for number, each in enumerate(found)], notes)
    with pytest.raises(Conflict, match="0 labelled answers"):
        calibrate(platform, "helpdesk")


def test_a_task_without_lights_has_nothing_to_calibrate(tmp_path: Path) -> None:
    start.make(tmp_path)
    with pytest.raises(Invalid, match="has no lights"):
        calibrate(open_project(tmp_path), "helpdesk")


def test_thresholds_are_never_laid_out_by_the_rows_that_decide() -> None:
    rows = [Row(str(number), number / 500, number < 100) for number in range(500)]
    alone = calibrated(NEW, rows, [], LightSettings())
    assert 340 < alone.labels < 460
    beside = calibrated(NEW, rows, [number / REFERENCE for number in range(REFERENCE)], LightSettings())
    assert (beside.labels, beside.wrong) == (500, 100)
    assert alone.green is not None
    assert beside.green is not None


@pytest.mark.slow
def test_green_keeps_its_promise_where_the_labels_lay_out_the_thresholds_too() -> None:
    """Scores are even and P(wrong) = (1 - score)^3, so that of answers from t on (1 - t)^3 / 4 are wrong."""
    drawn = random.Random(11)
    failures = shown = 0
    for draw in range(300):
        scores = [drawn.random() for _ in range(200)]
        rows = [Row(f"{draw}-{place}", each, drawn.random() < (1 - each) ** 3) for place, each in enumerate(scores)]
        green = calibrated(NEW, rows, [], LightSettings(wrong=0.1, risk=0.1)).green
        if green is not None:
            shown += 1
            failures += (1 - green.threshold) ** 3 / 4 > 0.1
    assert shown >= 200
    # Of what fails in 10 % of the draws, more failures than these have a chance of 1e-4.
    assert failures <= 51


def test_with_labels_enough_but_nothing_shown_every_light_is_yellow(platform: Platform) -> None:
    found, _ = traffic(100, 100)
    drawn = random.Random(3)
    log(platform, found, [said(each, "correct", float(drawn.random() < 0.7)) for each in found[:100]])
    [one] = calibrate(platform, "helpdesk")
    assert (one.green, one.red, one.known) == (None, None, True)
    made = platform.runs.find(trust.key("helpdesk", LightSettings()))
    assert made is not None
    lights = Lights(LightSettings.model_validate({"thresholds": made.meta["thresholds"]}))
    assert {lights.colour(score / 10, NEW) for score in range(11)} == {"yellow"}


def test_the_command_tells_labels_thresholds_and_shares(project: Path, platform: Platform) -> None:
    log(platform, *traffic(200, 300))
    words = ["lights", "calibrate", "helpdesk", "--project", str(project)]
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert told["task"] == "helpdesk"
    [one] = told["candidates"]
    assert (one["served_by"], one["labels"]) == (NEW, 200)
    assert one["green"]["bound"] <= 0.1
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert "with a risk of 10 %" in shown.stdout
