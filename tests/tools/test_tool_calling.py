"""The loop between a model and its tools, against a model whose turns are written down."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import JsonValue
from scripted_engine import completion, scripted

from noria.apps import tooling
from noria.backends.fake import FakeClock
from noria.errors import Conflict, NotFound, Unavailable
from noria.settings import CallingSettings
from noria.tools import wording
from noria.tools.calling import Dialogue, Form, converse, log_of
from noria.tools.functions import InProcess
from noria.tools.toolbox import Call, Tool, Toolbox
from noria.tools.weather import get_weather_forecast
from noria.types import Endpoint

QUESTION = "What is the weather in Birmingham?"
FORECAST = {"country": "United Kingdom", "city": "Birmingham", "date": "2026-01-21"}
ANSWER = "The weather in Birmingham, United Kingdom, on January 21, 2026, is expected to be fog and rain."


def get_current_date() -> str:
    """Today's date."""
    return date(2026, 1, 21).isoformat()


def fails() -> str:
    """Fails."""
    raise RuntimeError("no")


class Meeting:
    """A tool that ends only when two of its calls are under way."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=10)
        self.count = 0

    def meet(self, who: str) -> str:
        """Meet another one.

        Args:
            who: comes
        """
        self.count += 1
        self.barrier.wait()
        return f"{who} came"


def box(log: Path | None = None, allowed: Sequence[str] = ("*",), more: Sequence[Any] = ()) -> Toolbox:
    source = InProcess([get_current_date, get_weather_forecast, fails, *more])
    tools = [Tool(each.name, each, source, 5.0, 500) for each in source.specs()]
    return Toolbox(tools, allowed, FakeClock(), log, "ada")


class Model:
    """Says what was written down, and keeps what it was asked."""

    def __init__(self, *turns: Mapping[str, Any]) -> None:
        self.turns, self.asked = list(turns), list[dict[str, Any]]()

    def __call__(self, body: dict[str, JsonValue]) -> Mapping[str, Any]:
        self.asked.append(json.loads(json.dumps(body)))
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        return completion(
            {key: value for key, value in turn.items() if key != "cut"}, "length" if "cut" in turn else "stop"
        )


def wish(name: str, arguments: object, number: int = 1) -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": text}}


def native(*wishes: dict[str, Any]) -> dict[str, Any]:
    return {"content": None, "tool_calls": list(wishes)}


def held(value: object) -> dict[str, Any]:
    return {"content": json.dumps(value)}


def talk(model: Model, form: Form, toolbox: Toolbox | None = None, **limits: Any) -> Dialogue:
    settings = CallingSettings.model_validate(limits)
    return converse(model, toolbox or box(), [{"role": "user", "content": QUESTION}], settings, form, "talk")


BIRMINGHAM: dict[Form, list[dict[str, Any]]] = {
    "native": [native(wish("get_current_date", "{}")),
               native(wish("get_weather_forecast", FORECAST, 2)), {"content": ANSWER}],
    "schema": [held({"name": "get_current_date", "arguments": {}}),
               held({"name": "get_weather_forecast", "arguments": FORECAST}), held({"answer": ANSWER})],
}  # fmt: skip


@pytest.mark.parametrize("form", ["native", "schema"])
def test_the_weather_in_birmingham(form: Form, tmp_path: Path) -> None:
    model, log = Model(*BIRMINGHAM[form]), tmp_path / "tools" / "calls.jsonl"
    found = talk(model, form, box(log))
    assert (found.answer, found.ended, found.steps) == (ANSWER, "answer", 3)
    assert [each["role"] for each in found.messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert [each["content"] for each in found.messages if each["role"] == "tool"] == ["2026-01-21", "fog and rain"]
    asked = [each["tool_calls"][0]["function"] for each in found.messages if each.get("tool_calls")]
    assert [(each["name"], json.loads(each["arguments"])) for each in asked] == [
        ("get_current_date", {}), ("get_weather_forecast", FORECAST),
    ]  # fmt: skip
    # The two logs are equal: how a model was asked does not show in what it did.
    assert log_of(found.messages).splitlines() == [
        f"user       {QUESTION}",
        "assistant  calls get_current_date({})",
        "tool       2026-01-21",
        f"assistant  calls get_weather_forecast({json.dumps(FORECAST)})",
        "tool       fog and rain",
        f"assistant  {ANSWER}",
    ]
    assert (found.prompt_tokens, found.completion_tokens) == (33, 15)
    kept = [Call.model_validate_json(line) for line in log.read_text().splitlines()]
    assert [(each.who, each.conversation, each.tool, each.outcome, each.result_chars) for each in kept] == [
        ("ada", "talk", "get_current_date", "ok", 10), ("ada", "talk", "get_weather_forecast", "ok", 12),
    ]  # fmt: skip
    assert "Birmingham" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_native_form_is_openai_s() -> None:
    model = Model(*BIRMINGHAM["native"])
    talk(model, "native", box(allowed=["get_*"]))
    tools = model.asked[0]["tools"]
    assert [each["function"]["name"] for each in tools] == ["get_current_date", "get_weather_forecast"]
    assert all(each["function"]["strict"] is True for each in tools)
    assert "response_format" not in model.asked[0]
    last = model.asked[2]["messages"]
    assert last[1] == {"role": "assistant", "content": None, "tool_calls": [wish("get_current_date", "{}")]}
    assert last[2] == {"role": "tool", "tool_call_id": "c1", "content": "2026-01-21"}


def test_the_schema_form_holds_a_model_to_its_tools() -> None:
    model = Model(*BIRMINGHAM["schema"])
    talk(model, "schema", box(allowed=["get_*"]))
    body = model.asked[2]
    assert "tools" not in body
    schema = body["response_format"]["json_schema"]["schema"]
    Draft202012Validator.check_schema(schema)
    right = Draft202012Validator(schema)
    for good in (
        {"name": "get_current_date", "arguments": {}},
        {"answer": "x"},
        {"name": "get_weather_forecast", "arguments": FORECAST},
    ):
        assert right.is_valid(good)
    for bad in (
        {"name": "fails", "arguments": {}},
        {"name": "get_current_date"},
        {"answer": ""},
        {},
        {"name": "get_weather_forecast", "arguments": {}},
    ):
        assert not right.is_valid(bad)
    system, *turns = body["messages"]
    assert "get_weather_forecast: Weather forecast for a city on a date." in system["content"]
    assert [each["role"] for each in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert turns[2]["content"] == "Result of get_current_date: 2026-01-21"


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_is_kept_in_the_log_and_out_of_answer_and_requests(key: str) -> None:
    turns = [{**each, key: "I should look."} for each in BIRMINGHAM["native"]]
    model = Model(*turns)
    found = talk(model, "native")
    assert found.answer == ANSWER
    assert [each[key] for each in found.messages if each["role"] == "assistant"] == ["I should look."] * 3
    assert "I should look." not in json.dumps(model.asked)
    assert f"({key}) I should look." in log_of(found.messages)


def test_thoughts_within_the_content_are_no_answer() -> None:
    found = talk(Model({"content": "<think>Hm, fog.</think>\nFog."}), "native")
    assert (found.answer, found.messages[-1]["reasoning"]) == ("Fog.", "Hm, fog.")
    assert wording.thought_of({"content": "<think>never ends"}) == ("never ends", "")


def test_calls_of_one_turn_run_at_the_same_time_and_equal_ones_once() -> None:
    meeting = Meeting()
    turn = native(wish("meet", {"who": "Ada"}), wish("meet", {"who": "Bo"}, 2), wish("meet", '{"who":  "Ada"}', 3))
    found = talk(Model(turn, {"content": "met"}), "native", box(more=[meeting.meet]))
    assert [each["content"].splitlines()[0] for each in found.messages if each["role"] == "tool"] == [
        "Ada came", "Bo came", "Ada came",
    ]  # fmt: skip
    assert [each["tool_call_id"] for each in found.messages if each["role"] == "tool"] == ["c1", "c2", "c3"]
    assert [each.outcome for each in found.made] == ["ok", "ok", "repeated"]
    assert meeting.count == 2


@pytest.mark.parametrize(
    ("name", "arguments", "outcome", "told"),
    [
        ("get_wether", "{}", "unknown", "there is no tool 'get_wether'; there are: get_current_date, get_weather"),
        ("fails", "{}", "denied", "the tool 'fails' may not be called here"),
        ("get_current_date", "{", "invalid", "the arguments are no JSON object"),
        ("get_current_date", "[1]", "invalid", "the arguments are no JSON object"),
        ("get_weather_forecast", '{"city": "Birmingham"}', "invalid", "'country' is missing; 'date' is missing"),
        ("get_weather_forecast", {**FORECAST, "city": "Atlantis"}, "failed", "there is no forecast for Atlantis"),
    ],
)
def test_a_fault_is_told_to_the_model_which_may_do_better(
    name: str, arguments: object, outcome: str, told: str
) -> None:
    model = Model(native(wish(name, arguments)), *BIRMINGHAM["native"])
    found = talk(model, "native", box(allowed=["get_*"]))
    assert found.answer == ANSWER
    assert found.made[0].outcome == outcome
    assert told in json.loads(model.asked[1]["messages"][-1]["content"])["error"]
    assert found.results == ["2026-01-21", "fog and rain"]


@pytest.mark.parametrize(
    ("turn", "limits", "ended", "told"),
    [
        (native(wish("fails", "{}")), {"faults": 1}, "faults", "1 calls in a row failed"),
        (native(wish("nothing", "{}")), {}, "faults", "3 calls in a row failed, the last one with: nothing"),
        (native(wish("get_current_date", "{}")), {}, "faults", "this very call was made before"),
        (native(wish("get_current_date", "{}")), {"steps": 2}, "steps", "no answer after 2 steps"),
        (
            native(*(wish("get_current_date", {"n": n}, n) for n in range(4))),
            {"calls": 3},
            "calls",
            "more than 3 calls",
        ),
        ({"content": "It is", "cut": True}, {"max_tokens": 16}, "cut", "cut after 16 tokens"),
        ({"content": ""}, {}, "nonsense", "said nothing"),
        ({"content": None, "tool_calls": [{"id": "x"}]}, {}, "nonsense", "not in OpenAI's form"),
    ],
)
def test_every_bound_ends_with_its_reason(turn: dict[str, Any], limits: Any, ended: str, told: str) -> None:
    found = talk(Model(turn), "native", **limits)
    assert (found.answer, found.ended) == (None, ended)
    assert told in found.because


def test_time_is_a_bound_too() -> None:
    found = talk(Model(native(wish("get_current_date", "{}"))), "native", seconds=1e-9)
    assert (found.ended, found.steps) == ("seconds", 0)


def test_an_engine_that_holds_to_no_schema_ends_in_faults() -> None:
    model = Model({"content": "The weather is fine."})
    found = talk(model, "schema")
    assert (found.ended, found.answer) == ("faults", None)
    assert "answer in the form that was given" in model.asked[1]["messages"][-1]["content"]
    assert talk(Model({"content": '{"answer": "It', "cut": True}), "schema").ended == "cut"


def test_what_is_not_openai_s_api_is_no_answer() -> None:
    found = converse(
        lambda body: {"choices": []}, box(), [{"role": "user", "content": "?"}], CallingSettings(), "native"
    )
    assert found.ended == "nonsense"


def test_an_allow_list_that_names_nothing_and_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(NotFound, match="'get_wether' names no tool"):
        box(allowed=["get_wether"])
    source = InProcess([get_current_date])
    twins = [Tool(path, source.specs()[0], source, 1, 100) for path in ("a.get_current_date", "b.get_current_date")]
    with pytest.raises(Conflict, match=r"a\.get_current_date and b\.get_current_date"):
        Toolbox(twins, ["*"], FakeClock())
    assert [each.path for each in Toolbox(twins, ["b.*"], FakeClock()).tools] == ["b.get_current_date"]


@pytest.fixture(scope="module")
def shut() -> str:
    with scripted() as script:
        url = script.url
    return url


def test_over_http_a_model_is_asked_by_its_name_and_an_absent_one_is_told(shut: str) -> None:
    with scripted() as script:
        turns = iter([completion(each) for each in BIRMINGHAM["native"]])
        script.answers["/v1/chat/completions"] = (200, lambda body: next(turns))
        with tooling.model(Endpoint(url=script.url, key="k", model="helpdesk")) as ask:
            found = converse(ask, box(), [{"role": "user", "content": QUESTION}], CallingSettings(), "native")
        assert (found.answer, script.body["model"], len(script.asked)) == (ANSWER, "helpdesk", 3)
    with tooling.model(Endpoint(url=shut, key="k", model="helpdesk")) as ask, pytest.raises(Unavailable):
        converse(ask, box(), [{"role": "user", "content": QUESTION}], CallingSettings(), "native")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["get_current_date", "get_weather_forecast", "x"])
TURNS = st.one_of(
    st.builds(lambda name, arguments: native(wish(name, arguments)), NAMES, JSON),
    st.builds(lambda text: {"content": text}, st.text()),
    st.builds(held, JSON),
)


@given(st.lists(TURNS, min_size=1, max_size=4), st.sampled_from(["native", "schema"]))
def test_whatever_a_model_says_ends_within_the_bounds(turns: list[dict[str, Any]], form: Form) -> None:
    found = talk(Model(*turns), form, steps=5, calls=3)
    assert found.steps <= 5
    assert len(found.made) <= 3
    assert (found.answer is None) == (found.ended != "answer") == bool(found.because)


@pytest.mark.parametrize("form", ["native", "schema"])
@pytest.mark.parametrize(
    "arguments", ['{"city": "\\ud83d"}', '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"], ids=["half a pair", "deep"]
)
def test_no_arguments_of_a_model_crash_a_conversation(form: Form, arguments: str, tmp_path: Path) -> None:
    if form == "native":
        turns = [native(wish("get_current_date", arguments)), {"content": "It is \ud83d."}]
    else:
        turns = [{"content": f'{{"name": "get_current_date", "arguments": {arguments}}}'}, held({"answer": "It is ?."})]
    (tmp_path / "file").write_text("")
    # The log's folder cannot be made, which is no reason to end either.
    found = talk(Model(*turns), form, box(tmp_path / "file" / "calls.jsonl"))
    assert found.answer == "It is ?."
    json.dumps(found.messages, ensure_ascii=False).encode()
