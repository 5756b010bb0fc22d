"""The Responses API as the official client uses it, over an engine that knows chat only."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from gateway_fakes import KEY, Plane, running
from scripted_engine import Script, chunks, completion, scripted

CHAT = "/v1/chat/completions"
TOOL: Any = {
    "type": "function", "name": "weather", "description": "Of a city.", "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}  # fmt: skip

pytestmark = pytest.mark.slow


def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    named = {name: value for name, value in more.items() if name == "name"}
    identity = {"id": more["id"], "type": "function"} if "id" in more else {}
    return {"index": index, **identity, "function": {**named, "arguments": arguments}}


@pytest.fixture(scope="module")
def engine() -> Iterator[Script]:
    with scripted() as engine:
        yield engine


@pytest.fixture(scope="module")
def plane(engine: Script, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with running(tmp_path_factory.mktemp("state"), engine.url) as plane:
        yield plane


@pytest.fixture
def client(plane: Plane) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{plane.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_a_text_becomes_a_chat_and_its_answer_a_response(client: openai.OpenAI, plane: Plane, engine: Script) -> None:
    engine.answers[CHAT] = 200, completion({"content": " Hello. \n"})
    raw = client.responses.with_raw_response.create(
        model="helpdesk", input="Hi", instructions="Be brief.", max_output_tokens=7, temperature=0.5, store=True,
        user="bob", metadata={"conversation": "talk-1"}, reasoning={"effort": "low"}, extra_body={"top_k": 3},
    )  # fmt: skip
    got = raw.parse()
    assert (got.output_text, got.status, got.model) == ("Hello.", "completed", "helpdesk")
    assert got.to_dict()["store"] is False
    assert got.instructions == "Be brief."
    assert got.usage is not None
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.total_tokens) == (11, 5, 16)
    assert got.usage.input_tokens_details.cached_tokens == 3
    assert engine.body == {
        "model": "alias",
        "messages": [
            {"role": "system", "content": "You answer.\nBe brief."},
            {"role": "user", "content": "[Question] Hi\n[Answer]"},
        ],
        "stop": ["\n####"], "max_tokens": 7, "temperature": 0.5, "top_k": 3, "reasoning_effort": "low",
        "lora": [{"id": 0, "scale": 1.0}],
    }  # fmt: skip
    record = plane.recorded(raw.headers["x-noria-interaction"])
    assert (record.api, record.answer, record.status, record.conversation) == ("responses", "Hello.", 200, "talk-1")
    assert record.messages == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    assert record.request == {
        "model": "helpdesk", "max_output_tokens": 7, "temperature": 0.5, "store": True, "top_k": 3,
        "metadata": {"conversation": "talk-1"}, "reasoning": {"effort": "low"},
    }  # fmt: skip
    assert (record.prompt_tokens, record.completion_tokens) == (11, 5)


def test_items_tools_and_a_schema_are_told_in_the_words_of_chat(client: openai.OpenAI, engine: Script) -> None:
    engine.answers[CHAT] = 200, completion({"content": "{}"})
    client.responses.create(
        model="alias",
        input=[
            {"role": "developer", "content": "Use tools."},
            {"role": "user", "content": [
                {"type": "input_text", "text": "Look: "},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
            ]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Bonn"}'},
            {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": '{"city":"Rome"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
        ],
        tools=[TOOL],
        tool_choice={"type": "function", "name": "weather"},
        text={"format": {"type": "json_schema", "name": "out", "schema": {"type": "object"}, "strict": True}},
    )  # fmt: skip
    function = {name: value for name, value in TOOL.items() if name != "type"}
    calls = [
        {"id": name, "type": "function", "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'}}
        for name, city in (("c1", "Bonn"), ("c2", "Rome"))
    ]
    assert engine.body == {
        "model": "alias",
        "messages": [
            {"role": "developer", "content": "Use tools."},
            {"role": "user", "content": [
                {"type": "text", "text": "Look: "},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
            ]},
            {"role": "assistant", "content": None, "tool_calls": calls, "reasoning_content": "Hm."},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"role": "tool", "tool_call_id": "c2", "content": "sun"},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {
            "type": "json_schema", "json_schema": {"name": "out", "schema": {"type": "object"}, "strict": True},
        },
        "lora": [{"id": 0, "scale": 1.0}],
    }  # fmt: skip


def test_reasoning_calls_and_a_cut_answer_are_told(client: openai.OpenAI, plane: Plane, engine: Script) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bonn"}'}}]
    message = {"content": None, "reasoning_content": "Bonn it is.", "tool_calls": calls}
    engine.answers[CHAT] = 200, completion(message, "tool_calls")
    raw = client.responses.with_raw_response.create(model="helpdesk", input="Weather?", tools=[TOOL])
    got = raw.parse()
    assert [item.type for item in got.output] == ["reasoning", "function_call"]
    made: Any = got.output[1]
    assert (made.call_id, made.name, made.arguments) == ("c1", "weather", '{"city":"Bonn"}')
    record = plane.recorded(raw.headers["x-noria-interaction"])
    assert record.output == [{"text": "", "reasoning_content": "Bonn it is.", "tool_calls": calls}]
    engine.answers[CHAT] = 200, completion({"content": "And so"}, "length")
    cut = client.responses.create(model="helpdesk", input="Tell me.")
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_a_streamed_text_comes_as_typed_events_and_is_recorded_before_it_is_complete(
    client: openai.OpenAI, plane: Plane, engine: Script
) -> None:
    said = chunks({"role": "assistant", "content": ""}, {"content": " Hel"}, {"content": "lo."})
    # The engine is not at its end until a while after all but the usage was sent.
    ending = threading.Event()
    engine.answers[CHAT] = 200, [*said[:-2], ending, *said[-2:]]
    logged: list[bool] = []
    with client.responses.with_streaming_response.create(model="helpdesk", input="Hi", stream=True) as got:
        events: list[Any] = []
        for event in got.parse():
            events.append(event)
            identity = got.headers["x-noria-interaction"]
            logged.append(any(each.id == identity for each in plane.interactions()))
            if len(events) == 6:
                threading.Timer(0.5, ending.set).start()
    assert [event.type for event in events] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.delta", "response.output_text.done",
        "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(10))
    assert logged == [False] * 6 + [True] * 4
    last: Any = events[-1]
    assert (last.response.output_text, last.response.usage.total_tokens) == ("Hello.", 16)
    assert last.response.id == events[0].response.id
    record = plane.recorded(identity)
    assert (record.answer, record.stream, record.completion_tokens) == ("Hello.", True, 5)
    assert record.first_token_seconds is not None
    assert engine.body["stream_options"] == {"include_usage": True}


def test_streamed_reasoning_text_and_calls_are_items_that_the_client_puts_together(
    client: openai.OpenAI, plane: Plane, engine: Script
) -> None:
    engine.answers[CHAT] = 200, chunks(
        {"reasoning_content": "Let "}, {"reasoning_content": "me."}, {"content": "Sure."},
        {"tool_calls": [call(0, "", id="c1", name="weather")]}, {"tool_calls": [call(0, '{"city":')]},
        {"tool_calls": [call(0, '"Bonn"}')]}, {"tool_calls": [call(1, '{"city":"Rome"}', id="c2", name="weather")]},
        reason="tool_calls",
    )  # fmt: skip
    with client.responses.stream(model="helpdesk", input="Weather?", tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        final: Any = stream.get_final_response()
    assert kinds.count("response.function_call_arguments.delta") == 3
    assert kinds.count("response.function_call_arguments.done") == 2
    assert kinds.count("response.reasoning_text.delta") == 2
    assert kinds.count("response.output_item.done") == kinds.count("response.output_item.added") == 4
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
    assert [(item.call_id, item.arguments) for item in final.output[2:]] == [
        ("c1", '{"city":"Bonn"}'), ("c2", '{"city":"Rome"}'),
    ]  # fmt: skip
    assert final.output[0].content[0].text == "Let me."
    record = plane.interactions()[-1]
    assert record.output == [{
        "text": "Sure.", "reasoning_content": "Let me.",
        "tool_calls": [call(0, '{"city":"Bonn"}', id="c1", name="weather"),
                       call(1, '{"city":"Rome"}', id="c2", name="weather")],
    }]  # fmt: skip


def test_a_stream_that_is_cut_or_breaks_off_says_so(client: openai.OpenAI, plane: Plane, engine: Script) -> None:
    engine.answers[CHAT] = 200, chunks({"content": "And so"}, reason="length")
    events = list(client.responses.create(model="helpdesk", input="Tell me.", stream=True))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == "And so"
    engine.answers[CHAT] = 200, chunks({"content": "And so"})[:1]
    with pytest.raises(openai.APIError, match="broke off"):
        list(client.responses.create(model="helpdesk", input="Tell me.", stream=True))
    assert (plane.interactions()[-1].status, plane.interactions()[-1].answer) == (502, "And so")
    with plane.client() as plain:
        got = plain.post("/v1/responses", json={"model": "helpdesk", "input": "Tell me.", "stream": True})
    last = json.loads(got.text.strip().split("\n\n")[-1].partition("data: ")[2])
    assert (last["type"], last["code"], last["sequence_number"]) == ("error", "engine_error", 5)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input": "a", "previous_response_id": "resp_1"}, "'previous_response_id' needs responses that are kept"),
        ({"input": "a", "background": True}, "'background' needs"),
        ({"input": "a", "conversation": "conv_1"}, "'conversation' needs"),
        ({}, "'input' is missing or empty"),
        ({"input": []}, "'input' is missing or empty"),
        ({"input": [5]}, "'input.0' is not an object"),
        ({"input": [{"role": "user"}]}, "'input.0.content' is neither text nor a list"),
        ({"input": [{"role": "wizard", "content": "a"}]}, "'input.0.role' is 'wizard'"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "'input.0.type' is 'item_reference'"),
        ({"input": [{"type": "reasoning", "content": 5}]}, "'messages' is missing"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "image_url' is missing"),
        ({"input": "a", "instructions": 5}, "'instructions' is neither"),
        ({"input": "a", "max_output_tokens": 0}, "'max_output_tokens' is '0'"),
        ({"input": "a", "max_output_tokens": 10**6}, "'max_output_tokens' is 1000000; the most is 8192"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "only functions can be called here"),
        ({"input": "a", "tools": [{"type": "function"}]}, "'tools.0.name' is missing"),
        ({"input": "a", "tool_choice": {"type": "mcp"}}, "'tool_choice' is 'mcp'"),
        ({"input": "a", "text": {"format": {"type": "grammar"}}}, "'text.format' is 'grammar'"),
        ({"input": "a", "text": 5}, "'text.format' is '5'"),
        ({"input": "a", "stream": "yes"}, "'stream' is 'yes'"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_field_that_is_wrong(plane: Plane, body: Any, says: str) -> None:
    with plane.client() as client:
        got = client.post("/v1/responses", json={"model": "helpdesk", **body})
    assert (got.status_code, got.json()["error"]["type"]) == (400, "invalid_request_error")
    assert says in got.json()["error"]["message"]
    record = plane.recorded(got.headers["x-noria-interaction"])
    assert (record.api, record.status) == ("responses", 400)


def test_allowed_tools_are_the_ones_that_the_engine_sees(plane: Plane, engine: Script) -> None:
    engine.answers[CHAT] = 200, completion({"content": "ok"})
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}
    with plane.client() as client:
        body = {"model": "alias", "input": "a", "tools": [TOOL, {**TOOL, "name": "time"}], "tool_choice": allowed}
        assert client.post("/responses", json=body).status_code == 200
    assert [tool["function"]["name"] for tool in engine.body["tools"]] == ["weather"]
    assert engine.body["tool_choice"] == "required"


def test_log_probabilities_come_when_they_are_included(plane: Plane, engine: Script) -> None:
    told = {"content": [{"token": "ok", "logprob": -0.5, "bytes": [111, 107], "top_logprobs": []}]}
    document = completion({"content": "ok"})
    document["choices"][0]["logprobs"] = told
    engine.answers[CHAT] = 200, document
    body = {"model": "helpdesk", "input": "a"}
    with plane.client() as client:
        without = client.post("/v1/responses", json=body)
        got = client.post("/v1/responses", json={**body, "include": ["message.output_text.logprobs"]})
    assert without.json()["output"][0]["content"][0]["logprobs"] == []
    assert got.json()["output"][0]["content"][0]["logprobs"] == told["content"]
    assert engine.body["logprobs"] is True
    assert plane.recorded(got.headers["x-noria-interaction"]).logprob == -0.5


def test_a_response_is_not_there_to_be_fetched(plane: Plane) -> None:
    got = httpx.get(f"{plane.url}/v1/responses/resp_1", headers={"authorization": f"Bearer {KEY}"})
    assert got.status_code == 404


def test_guards_see_what_is_asked_and_what_is_answered(engine: Script, tmp_path: Path) -> None:
    engine.answers[CHAT] = 200, completion({"content": "Write to bob@example.org."})
    plane = Plane(tmp_path)
    plane.task = {"guards": {"input": {"personal": "refuse"}, "output": {"personal": "redact"}}}
    plane.publish(engine.url)
    plane.start()
    try:
        with plane.client() as client:
            item = {"role": "user", "content": [{"type": "input_text", "text": "I am alice@example.org"}]}
            refused = client.post("/v1/responses", json={"model": "helpdesk", "input": [item]})
            got = client.post("/v1/responses", json={"model": "helpdesk", "input": "Hi"})
    finally:
        plane.stop()
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
    assert got.json()["output"][0]["content"][0]["text"] == "Write to [email]."
