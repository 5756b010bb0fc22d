"""Clients as people use them, against the real embedded engine behind the gateway's process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from gateway_fakes import KEY, Plane, wait_for
from hard_fakes import serving, task
from openai.types import Batch
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from noria.backends import llamacpp
from noria.gateway.batch.store import ENDED
from noria.settings import EngineSettings
from noria.types import Arm, Route

pytestmark = pytest.mark.slow

CLIENTS = Path.home() / ".cache" / "noria" / "clients" / "bin" / "python"
"""An environment of its own: python -m venv ~/.cache/noria/clients, then its pip install langchain-openai litellm."""
PARIS: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather", "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}  # fmt: skip


class City(BaseModel):
    """What the engine has to fill in."""

    city: Literal["Paris", "Rome"]
    large: bool


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("clients")
    settings = EngineSettings(kind="llamacpp", model="smollm2-135m-instruct", slots=2, context=1024)
    engine = llamacpp.open().start(settings, {}, folder / "engine.log")
    try:
        arm = Arm(served_by="base:smollm2@0123456789abcdef", engine="local", upstreams=(engine.endpoint,))
        routes = {"helpdesk": Route(arms=(arm,), task=task(max_tokens=48)), "base": Route(arms=(arm,))}
        with serving(folder / "state", routes) as plane:
            yield plane
    finally:
        engine.close()


@pytest.fixture
def client(plane: Plane) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{plane.url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"helpdesk", "base"}
    assert client.models.retrieve("base").owned_by == "local"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-9'"):
        client.models.retrieve("gpt-9")


def test_chat(client: openai.OpenAI, plane: Plane) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="helpdesk", messages=PARIS, max_tokens=8, seed=7, logprobs=True, top_logprobs=2
    )
    got = raw.parse()
    assert got.model == "helpdesk"
    assert got.choices[0].message.content
    assert got.usage is not None
    assert 0 < got.usage.completion_tokens <= 8
    assert got.choices[0].logprobs is not None
    assert got.choices[0].logprobs.content
    record = plane.recorded(raw.headers["x-noria-interaction"])
    assert record.answer == got.choices[0].message.content
    assert (record.prompt_tokens, record.completion_tokens) == (got.usage.prompt_tokens, got.usage.completion_tokens)


def test_several_choices_and_stops(client: openai.OpenAI) -> None:
    got = client.chat.completions.create(model="base", messages=PARIS, max_tokens=4, n=2, stop=["\n"], seed=1)
    assert [choice.index for choice in got.choices] == [0, 1]


def test_streams(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="helpdesk", messages=PARIS, max_tokens=8)
    streamed = client.chat.completions.create(
        model="helpdesk", messages=PARIS, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(streamed)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said.strip() == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage == whole.usage or chunks[-1].usage.completion_tokens <= 8
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"


def test_structured_output_is_what_the_schema_says(client: openai.OpenAI) -> None:
    got = client.chat.completions.parse(model="helpdesk", messages=PARIS, response_format=City, max_tokens=48)
    assert got.choices[0].message.parsed is not None
    assert got.choices[0].message.parsed.city in ("Paris", "Rome")
    answer = client.responses.parse(model="helpdesk", input="Paris?", text_format=City, max_output_tokens=48)
    assert answer.output_parsed is not None


def test_tools_and_what_they_said_are_taken(client: openai.OpenAI) -> None:
    """The packaged model's template knows no tools, so what it makes of them is text; nothing may be lost on the way.

    What a call looks like that an engine does make: test_responses.py and test_chat.py.
    """
    got = client.chat.completions.create(model="base", messages=PARIS, tools=[WEATHER], max_tokens=16)
    message = got.choices[0].message
    assert message.content or message.tool_calls
    call: Any = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    told: list[ChatCompletionMessageParam] = [
        *PARIS, {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "Rain."},
    ]  # fmt: skip
    after = client.chat.completions.create(model="base", messages=told, tools=[WEATHER], max_tokens=8)
    assert after.choices[0].message.content
    # The client takes an answer that ends for its length for an error.
    with client.chat.completions.stream(model="base", messages=PARIS, tools=[WEATHER], stop=[" "]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content or final.choices[0].message.tool_calls


def test_completions(client: openai.OpenAI) -> None:
    got = client.completions.create(model="base", prompt="The capital of France is", max_tokens=4, temperature=0)
    assert "Paris" in got.choices[0].text
    streamed = client.completions.create(
        model="base", prompt="The capital of France is", max_tokens=4, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == got.choices[0].text


def test_responses(client: openai.OpenAI) -> None:
    got = client.responses.create(model="helpdesk", input="Say hello.", max_output_tokens=8)
    assert got.output_text
    assert got.status in ("completed", "incomplete")
    assert got.usage is not None
    assert 0 < got.usage.output_tokens <= 8
    with client.responses.stream(model="helpdesk", input="Paris?", text_format=City, max_output_tokens=48) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert final.output_parsed is not None


def test_files(client: openai.OpenAI) -> None:
    made = client.files.create(
        file=("notes.txt", b"a\nb\n"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (made.filename, made.bytes, made.purpose) == ("notes.txt", 4, "user_data")
    assert made.expires_at == made.created_at + 3600
    assert client.files.retrieve(made.id) == made
    assert [each.id for each in client.files.list(purpose="user_data", limit=1)] == [made.id]
    assert client.files.content(made.id).content == b"a\nb\n"
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        client.files.retrieve(made.id)


def test_batches(client: openai.OpenAI, plane: Plane) -> None:
    bodies = {
        "a": {"model": "helpdesk", "messages": PARIS, "max_tokens": 4},
        "b": {"model": "base", "messages": PARIS, "max_tokens": 4},
        "c": {"model": "base", "messages": PARIS, "max_tokens": 0},
    }
    asked = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for name, body in bodies.items()
    ]
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in asked)
    file = client.files.create(file=("in.jsonl", lines), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"for": "test"}
    )
    done = wait_for(lambda: _ended(client, made.id), 120)
    assert (done.status, done.metadata) == ("completed", {"for": "test"})
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (2, 1)
    assert done.output_file_id is not None
    assert done.error_file_id is not None
    answers = [json.loads(line) for line in client.files.content(done.output_file_id).iter_lines()]
    assert sorted(each["custom_id"] for each in answers) == ["a", "b"]
    for each in answers:
        assert each["response"]["body"]["choices"][0]["message"]["content"]
    (failed,) = [json.loads(line) for line in client.files.content(done.error_file_id).iter_lines()]
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("c", 400)
    assert made.id in {each.id for each in client.batches.list(limit=5)}
    with pytest.raises(openai.ConflictError, match="cannot be cancelled"):
        client.batches.cancel(made.id)


def _ended(client: openai.OpenAI, identity: str) -> Batch | None:
    found = client.batches.retrieve(identity)
    return found if found.status in ENDED else None


def test_what_the_engine_lacks_is_said_in_its_own_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"does not offer /embeddings: .*--embeddings"):
        client.embeddings.create(model="base", input="hello")


def test_an_engines_refusal_reaches_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(model="base", messages=[{"role": "user", "content": "word " * 2000}])


LANGCHAIN = """
import json, sys
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
class City(BaseModel):
    city: str
    large: bool
model = ChatOpenAI(model="helpdesk", base_url=sys.argv[1], api_key=sys.argv[2], max_tokens=32, max_retries=0)
said = model.invoke("What is the weather in Paris?")
pieces = "".join(chunk.content for chunk in model.stream("What is the weather in Paris?"))
city = model.with_structured_output(City, method="json_schema").invoke("Is Paris large?")
print(json.dumps({"said": said.content, "usage": said.usage_metadata["output_tokens"], "pieces": pieces,
                  "city": type(city).__name__}))
"""
LITELLM = """
import json, os, sys
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
litellm.telemetry = False
asked = dict(model="openai/helpdesk", api_base=sys.argv[1], api_key=sys.argv[2], max_tokens=16, num_retries=0,
             messages=[{"role": "user", "content": "What is the weather in Paris?"}])
said = litellm.completion(**asked)
pieces = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True))
try:
    litellm.completion(**{**asked, "api_key": "wrong"})
    refused = ""
except litellm.AuthenticationError as error:
    refused = str(error)
print(json.dumps({"said": said.choices[0].message.content, "usage": said.usage.completion_tokens, "pieces": pieces,
                  "refused": refused}))
"""


def test_langchain(plane: Plane) -> None:
    told = _told(plane, LANGCHAIN, "langchain_openai")
    assert told["said"]
    assert told["pieces"].strip() == told["said"]
    assert told["usage"] <= 32
    assert told["city"] == "City"


def test_litellm_as_a_client(plane: Plane) -> None:
    told = _told(plane, LITELLM, "litellm")
    assert told["said"]
    assert told["pieces"].strip() == told["said"]
    assert told["usage"] <= 16
    assert "not known here" in told["refused"]


def _told(plane: Plane, script: str, package: str) -> dict[str, Any]:
    """What a script says of its calls, run where the package is installed."""
    if not CLIENTS.exists():
        pytest.skip(f"'{CLIENTS.parents[1]}' is missing: an environment with langchain-openai and litellm")
    found = subprocess.run([CLIENTS, "-c", f"import {package}"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"{package} is not installed in '{CLIENTS.parents[1]}'")
    done = subprocess.run(
        [CLIENTS, "-c", script, f"{plane.url}/v1", KEY], capture_output=True, text=True, timeout=300
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
