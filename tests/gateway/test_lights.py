"""Lights on answers, over the wire."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_fakes import Plane, asking, running
from scripted_engine import Script, chunks, completion, scripted

from noria.backends import fts
from noria.gateway.light import Lights
from noria.settings import LightSettings, ThresholdSettings
from noria.types import Document

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
CANDIDATE = "candidate:helpdesk@0123456789abcdef"
MANUAL = "Press the reset button for five seconds. The lamp then blinks twice."
KNOWN, MADE_UP = "Press the reset button for five seconds.", "Elephants repair it on Sundays."


def calibrated(green: float | None, red: float | None, **more: Any) -> dict[str, Any]:
    thresholds = {CANDIDATE: ThresholdSettings(green=green, red=red)}
    return {"lights": LightSettings(thresholds=thresholds, **more)}


def surely(*probabilities: float) -> dict[str, Any]:
    return {"content": [{"token": "x", "logprob": math.log(each)} for each in probabilities]}


def told(text: str, *probabilities: float) -> dict[str, Any]:
    document = completion({"content": text})
    document["choices"][0]["logprobs"] = surely(*probabilities)
    return document


@pytest.fixture(scope="module")
def engine() -> Iterator[Script]:
    with scripted() as engine:
        yield engine


@pytest.fixture(scope="module")
def shared(engine: Script, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("lights")
    index = folder / "index"
    index.mkdir()
    fts.Indexes().build(
        [Document(
            id="0123456789abcdef", source="faq", text=MANUAL, fields={}, conversation="c", file="f", offset=0,
            digest="0123456789abcdef",
        )],
        index,
    )  # fmt: skip
    with running(folder / "state", engine.url, index) as plane:
        yield plane


@pytest.fixture
def plane(shared: Plane, engine: Script) -> Plane:
    engine.asked.clear()
    return shared


def publish(plane: Plane, engine: Script, **task: Any) -> None:
    plane.task = task
    plane.publish(engine.url)
    while httpx.get(f"{plane.url}/health").json()["snapshot"] < plane.version:
        pass


def ask(plane: Plane, text: str = "How do I reset it?", **more: Any) -> httpx.Response:
    with plane.client() as client:
        return client.post(CHAT, json=asking(text, **more))


def streamed(plane: Plane, **more: Any) -> list[dict[str, Any]]:
    got = ask(plane, stream=True, **more)
    assert got.text.endswith("data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in got.text.splitlines() if line.startswith("data: {")]


def test_a_task_without_lights_has_none_and_asks_for_no_log_probabilities(plane: Plane, engine: Script) -> None:
    publish(plane, engine)
    engine.answers[CHAT] = 200, completion({"content": KNOWN})
    got = ask(plane)
    assert "noria" not in got.json()
    assert "x-noria-light" not in got.headers
    assert "logprobs" not in engine.body
    record = plane.recorded(got.headers["x-noria-interaction"])
    assert (record.light, record.support) == (None, None)


def test_before_calibration_the_light_says_so_and_every_answer_wants_confirmation(plane: Plane, engine: Script) -> None:
    publish(plane, engine, lights=LightSettings())
    engine.answers[CHAT] = 200, told(f"{KNOWN} {MADE_UP}", 0.9, 0.8)
    got = ask(plane)
    said = got.json()["noria"]
    assert said == {
        "light": "uncalibrated", "confirm": True, "supported": ["Press the reset button for five seconds."],
        "unsupported": [MADE_UP], "unused": ["The lamp then blinks twice."], "advice": said["advice"],
    }  # fmt: skip
    assert "1 of its sentences is not in the sources" in said["advice"]
    assert got.headers["x-noria-light"] == "uncalibrated"
    record = plane.recorded(got.headers["x-noria-interaction"])
    assert record.light == "uncalibrated"
    assert record.support is not None
    assert 0.3 < record.support < 0.8
    assert record.logprob == pytest.approx((math.log(0.9) + math.log(0.8)) / 2)


def test_log_probabilities_that_only_the_light_wants_are_not_shown(plane: Plane, engine: Script) -> None:
    publish(plane, engine, lights=LightSettings())
    engine.answers[CHAT] = 200, told(KNOWN, 0.9)
    assert ask(plane).json()["choices"][0]["logprobs"] is None
    assert engine.body["logprobs"] is True
    assert ask(plane, logprobs=True).json()["choices"][0]["logprobs"] == surely(0.9)
    piece = chunks({"content": KNOWN})
    piece[0]["choices"][0]["logprobs"] = surely(0.9)
    engine.answers[CHAT] = 200, piece
    assert all(not choice.get("logprobs") for chunk in streamed(plane) for choice in chunk["choices"])


@pytest.mark.parametrize(
    ("answer", "probability", "light", "advice"),
    [
        (KNOWN, 0.95, "green", "at most 10 % of answers with a green light are wrong"),
        (KNOWN, 0.3, "yellow", "Check this"),
        (MADE_UP, 0.2, "red", "Do not use this"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_light_follows_from_the_signals(
    plane: Plane, engine: Script, answer: str, probability: float, light: str, advice: str, stream: bool
) -> None:
    publish(plane, engine, **calibrated(0.9, 0.3))
    if stream:
        script = chunks({"content": answer[:9]}, {"content": answer[9:]})
        for chunk in script[:2]:
            chunk["choices"][0]["logprobs"] = surely(probability)
        engine.answers[CHAT] = 200, script
        got = streamed(plane)
        assert [("noria" in chunk, chunk["choices"][0]["finish_reason"]) for chunk in got] == [
            (False, None), (False, None), (True, "stop"),
        ]  # fmt: skip
        said, identity = got[-1]["noria"], plane.interactions()[-1].id
    else:
        engine.answers[CHAT] = 200, told(answer, probability)
        plain = ask(plane)
        said, identity = plain.json()["noria"], plain.headers["x-noria-interaction"]
        assert plain.headers["x-noria-light"] == light
    assert said["light"] == light
    assert advice in said["advice"]
    record = plane.recorded(identity)
    assert (record.light, record.answer, record.stream) == (light, answer, stream)


def test_what_guards_find_takes_the_green_away(plane: Plane, engine: Script) -> None:
    publish(plane, engine, **calibrated(0.6, None), guards={"output": {"personal": "flag"}})
    engine.answers[CHAT] = 200, told(KNOWN, 0.95)
    assert ask(plane).json()["noria"]["light"] == "green"
    engine.answers[CHAT] = 200, told(f"{KNOWN} Write to ann@example.org.", 0.95)
    assert ask(plane).json()["noria"]["light"] == "yellow"


def test_what_was_not_calibrated_has_no_light(plane: Plane, engine: Script) -> None:
    """A release changes what the scores mean."""
    thresholds = {"candidate:helpdesk@fedcba9876543210": ThresholdSettings(green=0.1)}
    publish(plane, engine, lights=LightSettings(thresholds=thresholds))
    engine.answers[CHAT] = 200, told(KNOWN, 0.95)
    assert ask(plane).headers["x-noria-light"] == "uncalibrated"


def test_several_answers_have_no_light_and_a_call_of_a_tool_is_uncalibrated(plane: Plane, engine: Script) -> None:
    publish(plane, engine, **calibrated(0.1, None))
    both = told(KNOWN, 0.9)
    both["choices"].append({**both["choices"][0], "index": 1})
    engine.answers[CHAT] = 200, both
    assert "x-noria-light" not in ask(plane, n=2).headers
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    engine.answers[CHAT] = 200, completion({"content": None, "tool_calls": [call]}, "tool_calls")
    assert ask(plane).headers["x-noria-light"] == "uncalibrated"


def test_a_stream_that_may_call_tools_is_not_asked_for_log_probabilities(plane: Plane, engine: Script) -> None:
    publish(plane, engine, lights=LightSettings())
    engine.answers[CHAT] = 200, chunks({"content": KNOWN})
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    assert streamed(plane, tools=[tool])[-1]["noria"]["light"] == "uncalibrated"
    assert "logprobs" not in engine.body


def test_results_of_tools_are_sources(plane: Plane, engine: Script) -> None:
    publish(plane, engine, lights=LightSettings())
    engine.answers[CHAT] = 200, told("It is 21 degrees in Rome.", 0.9)
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "How warm is it?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "Rome: 21 degrees."},
    ]  # fmt: skip
    with plane.client() as client:
        got = client.post(CHAT, json={"model": "helpdesk", "messages": messages}).json()["noria"]
    assert (got["supported"], got["unsupported"]) == (["Rome: 21 degrees."], [])


def test_what_a_guard_takes_out_of_answers_is_not_shown_beside_them(plane: Plane, engine: Script) -> None:
    publish(plane, engine, lights=LightSettings(), guards={"output": {"personal": "redact"}})
    engine.answers[CHAT] = 200, told("Write to ann@example.org.", 0.9)
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Whom?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "Write to ann@example.org. Never call +44 20 7946 0958."},
    ]  # fmt: skip
    with plane.client() as client:
        got = client.post(CHAT, json={"model": "helpdesk", "messages": messages})
    assert "ann@" not in got.text
    assert "7946" not in got.text
    assert got.json()["noria"]["supported"] == ["Write to [email]."]


def test_a_response_has_its_light_too(plane: Plane, engine: Script) -> None:
    publish(plane, engine, **calibrated(0.9, None))
    engine.answers[CHAT] = 200, told(KNOWN, 0.95)
    with plane.client() as client:
        got = client.post("/v1/responses", json={"model": "helpdesk", "input": "How do I reset it?"})
        assert got.headers["x-noria-light"] == got.json()["noria"]["light"] == "green"
        piece = chunks({"content": KNOWN})
        piece[0]["choices"][0]["logprobs"] = surely(0.95)
        engine.answers[CHAT] = 200, piece
        got = client.post("/v1/responses", json={"model": "helpdesk", "input": "How?", "stream": True})
    events = [json.loads(line[6:]) for line in got.text.splitlines() if line.startswith("data: ")]
    assert events[-1]["response"]["noria"]["light"] == "green"


def test_a_share_of_green_answers_wants_confirmation(plane: Plane, engine: Script) -> None:
    publish(plane, engine, **calibrated(0.5, None, confirm=0.5))
    engine.answers[CHAT] = 200, told(KNOWN, 0.95)
    said = [ask(plane).json()["noria"]["confirm"] for _ in range(40)]
    # One side empty: a chance of 2e-12.
    assert {True, False} == set(said)


def test_the_share_that_wants_confirmation_is_the_one_that_was_set() -> None:
    lights = Lights(LightSettings(confirm=0.1))
    said = [lights.confirms("green", f"0193{number:08x}") for number in range(20_000)]
    # Six standard deviations.
    assert abs(sum(said) / len(said) - 0.1) < 0.0128
    assert said == [lights.confirms("green", f"0193{number:08x}") for number in range(20_000)]
    assert not any(lights.confirms(colour, "0193") for colour in ("yellow", "red"))
    assert not any(Lights(LightSettings(confirm=0)).confirms(colour, "0193") for colour in ("green", "uncalibrated"))


def test_without_lights_nothing_is_opened(tmp_path: Path, engine: Script) -> None:
    from noria.gateway.snapshot import SnapshotFile

    plane = Plane(tmp_path)
    plane.publish(engine.url)
    view = SnapshotFile(tmp_path / "snapshot.json", fts.Indexes().open).current
    assert all(live.lights is None for live in view.live.values())
