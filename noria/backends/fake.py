"""Stand-ins that ship with noria: an engine that answers from a table over real HTTP, a clock, studies in memory.

They are for tests and for trying a project without a model. The engine keeps every promise of its port; the
conformance suite holds it to them.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue

from noria.backends import engine_metrics
from noria.backends.chat_client import ChatClient
from noria.classes import among, canonical
from noria.errors import Invalid, NoriaError, NotFound
from noria.ports import EngineKind
from noria.prompts import answer_part, parse
from noria.settings import EngineSettings, SearchPlan, known
from noria.types import Caps, Endpoint, Form, Generation, Load, Message, Ref, Trial, digest_of

ADAPTER_FILE: Final = "answers.json"
VOCABULARY: Final = 49_152


def open() -> EngineKind:
    """A fake whose base model echoes every question."""
    return FakeEngines()


class FakeClock:
    """Port `Clock` with a time that only `advance` moves; `monotonic` gives the same time in seconds."""

    def __init__(self, at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._began = at
        self._at = at

    def now(self) -> datetime:
        """The time it was set to."""
        return self._at

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return (self._at - self._began).total_seconds()

    def advance(self, seconds: float) -> None:
        """Move the time on."""
        self._at += timedelta(seconds=seconds)


class FakeStudies:
    """Port `Studies` in memory: values are drawn at random by the plan's seed, and nothing is ever pruned."""

    def __init__(self) -> None:
        self._studies: dict[str, FakeStudy] = {}

    def open(self, name: str, plan: SearchPlan | None = None) -> FakeStudy:
        """Begin a study or go on with it; raises NotFound without a plan where there is none."""
        if plan is not None:
            study = self._studies.setdefault(name, FakeStudy(name, plan))
            study.plan = plan
        if name not in self._studies:
            raise NotFound(f"there is no study '{name}'", known(name, self._studies))
        return self._studies[name]

    def names(self) -> list[str]:
        """All studies, oldest first."""
        return [*self._studies]

    def remove(self, name: str) -> None:
        """Remove a study with its trials; raises NotFound."""
        self.open(name)
        del self._studies[name]


class FakeStudy:
    """Port `Study`."""

    def __init__(self, name: str, plan: SearchPlan) -> None:
        self.name = name
        self.plan = plan
        self._trials: list[Trial] = []
        self._waiting = [plan.first] if plan.first else []
        self._marks: set[str] = set()

    def ask(self) -> Trial | None:
        """Begin the next trial; None once the budget is spent."""
        plan = self.plan
        counted = [each for each in self._trials if each.state != "lost"]
        minutes, energy = plan.minutes or math.inf, plan.energy_wh or math.inf
        if (
            len(counted) >= plan.most
            or sum(each.seconds for each in counted) >= 60 * minutes
            or sum(each.wh or 0.0 for each in counted) >= energy
        ):
            return None
        number = len(self._trials)
        drawn = {
            axis.name: random.Random(f"{plan.seed} {number} {axis.name}").choice(axis.grid()) for axis in plan.axes
        }
        if self._waiting:
            drawn |= self._waiting.pop(0)
        self._trials.append(Trial(number=number, state="running", values=drawn))
        return self._trials[-1]

    def report(self, number: int, tenth: int, value: float) -> bool:
        """Note what was measured on the way; never prunes."""
        trial = self._trials[number]
        self._trials[number] = trial.model_copy(update={"curve": (*trial.curve, value)})
        return False

    def tell(self, trial: Trial) -> None:
        """End a trial; a lost one waits again."""
        kept = {"curve": self._trials[trial.number].curve}
        self._trials[trial.number] = trial.model_copy(update=kept)
        if trial.state == "lost":
            self._waiting.append(trial.values)

    def trials(self) -> list[Trial]:
        """All of them, by number."""
        return list(self._trials)

    def importance(self) -> dict[str, float]:
        """Equal shares, of four finished trials and more."""
        done = sum(each.state == "complete" for each in self._trials)
        axes = self.plan.axes
        return {axis.name: 1 / len(axes) for axis in axes} if done >= 4 and len(axes) > 1 else {}

    def once(self, mark: str) -> bool:
        """True for the first who names this mark."""
        first = mark not in self._marks
        self._marks.add(mark)
        return first


class FakeEngines:
    """Port `EngineKind` whose base model answers a known question from `answers` and echoes any other.

    An adapter's folder holds `answers.json`, a JSON object from question to answer that is looked up before the
    base's. A question is the last user message, or the [Question] part of an annotated prompt. One word counts as
    one token.
    """

    def __init__(self, answers: Mapping[str, str] | None = None) -> None:
        self._answers = dict(answers or {})

    @property
    def caps(self) -> Caps:
        """All of them: answers come from a table."""
        return Caps(lora=True, exact_tokens=True, batch_invariant=True, prompt_logprobs=True, choice="classes")

    def base(self, settings: EngineSettings) -> tuple[Ref, str]:
        """The base is named as the settings name it; its content is the table. Raises Invalid without `model`."""
        if settings.model is None:
            raise Invalid("engines of kind 'fake' are launched, not attached", 'model = "fake"')
        digest = digest_of({"model": settings.model, "answers": {**self._answers}})
        return Ref(kind="base", name=Path(settings.model).stem, digest=digest), "F32"

    def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> FakeEngine:
        """A server on a free port of the loopback; raises Invalid for an adapter folder without `answers.json`."""
        base, _ = self.base(settings)
        tables = {str(ref): {**self._answers, **_read_table(ref, folder)} for ref, folder in adapters.items()}
        return FakeEngine(base.name, {"": self._answers, **tables}, settings.context)


class FakeEngine:
    """Port `Engine` on a thread of this process; `tables` maps each adapter's ref (the base: "") to its answers."""

    def __init__(self, model: str, tables: Mapping[str, Mapping[str, str]], context: int) -> None:
        self._server = _Server(model, tables, context)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self._root = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._chat = ChatClient(
            Endpoint(url=f"{self._root}/v1", key=self._server.key, model=model), model, "start it again"
        )
        self._adapters = tuple(tables)[1:]
        self._closing = threading.Lock()

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""
        return self._chat.endpoint

    def extra(self, adapter: Ref | None) -> dict[str, JsonValue]:
        """The adapter's name, the base's being empty; raises NotFound for an unknown one."""
        if adapter is not None and str(adapter) not in self._adapters:
            raise NotFound(f"adapter '{adapter}' is not loaded in this engine", known(str(adapter), self._adapters))
        return {"adapter": str(adapter or "")} if self._adapters else {}

    def answer(
        self, messages: Sequence[Message], adapter: Ref | None, max_tokens: int, stop: Sequence[str], how: Form = Form()
    ) -> Generation:
        """The table's answer, or the question itself."""
        extra = {**self.extra(adapter), **among("classes", how.among, how.several)}
        return self._chat.answer(messages, extra, max_tokens, stop, how)

    def next_token(self, tokens: Sequence[int], adapter: Ref | None) -> tuple[int, float]:
        """A token and a log-probability that depend on nothing but the tokens and the adapter."""
        if not tokens:
            raise Invalid("no token comes after an empty prompt", "give at least one token id")
        body: dict[str, JsonValue] = {**self.extra(adapter), "prompt": list(tokens)}
        reply = self._chat.post(f"{self._root}/completion", body)
        return int(reply["id"]), float(reply["logprob"])

    def logprob(self, messages: Sequence[Message], answer: str, adapter: Ref | None) -> tuple[float, int]:
        """A tenth of a nat for each letter of the answer's words."""
        return self._chat.likelihood(messages, answer, self.extra(adapter))

    def alive(self) -> bool:
        """Whether it answers."""
        try:
            self._chat.get(f"{self._root}/health")
        except NoriaError:
            return False
        return True

    def measure(self) -> Load:
        """Nothing waits; a thread runs for each request."""
        return engine_metrics.read(self._chat.text(f"{self._root}/metrics"), engine_metrics.NAMES["fake"])

    def crash(self) -> None:
        """Stop answering at once, as an engine does whose process was killed."""
        with self._closing:
            if self._thread.is_alive():
                self._server.shutdown()
                self._server.server_close()
                self._thread.join()

    def close(self) -> None:
        """Stop answering after the requests in flight; may be called again."""
        self.crash()
        self._chat.close()


class _Server(ThreadingHTTPServer):
    """The tables behind HTTP; answers one request a connection, so that a stopped server holds none open."""

    block_on_close = True
    daemon_threads = False

    def __init__(self, model: str, tables: Mapping[str, Mapping[str, str]], context: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model
        self.tables = tables
        self.context = context
        self.key = "fake"
        self.running = 0
        self._counting = threading.Lock()

    def count(self, by: int) -> None:
        """One request more, or one less, is being answered."""
        with self._counting:
            self.running += by

    def chat(self, body: Mapping[str, Any]) -> dict[str, JsonValue]:
        """A chat completion; raises Invalid for a prompt longer than the context."""
        messages = body["messages"]
        prompt = sum(len(str(message["content"]).split()) for message in messages)
        if prompt > self.context:
            raise Invalid(f"request ({prompt} tokens) exceeds the available context size ({self.context} tokens)")
        asked = _question(str(messages[-1]["content"]))
        text = self.tables[body.get("adapter") or ""].get(asked, asked)
        if wanted := (body.get("response_format") or {}).get("json_schema"):
            text = _formed(text, wanted["schema"])
        names = body.get("classes") or (body.get("structured_outputs") or {}).get("choice")
        if names:
            text = canonical(text, names, bool(body.get("several"))) or names[0]
        for mark in body.get("stop") or ():
            text = text.partition(mark)[0]
        words = text.split(" ")
        limit = body.get("max_tokens") or len(words)
        given = " ".join(words[:limit])
        message: dict[str, JsonValue] = {"role": "assistant", "content": given}
        choice: dict[str, JsonValue] = {"index": 0, "message": message}
        if body.get("top_logprobs"):
            choice["logprobs"] = {"content": _places(given, int(body["top_logprobs"]))}
        finish = "length" if len(words) > limit else "stop"
        count = min(len(words), limit)
        return {
            "id": f"chatcmpl-{digest_of({'messages': messages})}",
            "object": "chat.completion",
            "created": 0,
            "model": self.model,
            "choices": [{**choice, "finish_reason": finish}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count},
            "prompt_logprobs": _logprobs(messages) if "prompt_logprobs" in body else None,
        }

    def next_token(self, body: Mapping[str, Any]) -> dict[str, JsonValue]:
        """The next token's id and log-probability, from a hash of the request."""
        seed = json.dumps([body.get("adapter") or "", body["prompt"]])
        number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")
        return {"id": number % VOCABULARY, "logprob": -(number % 1000) / 100}


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Health and the list of models."""
        if self.path == "/health":
            self._send(200, {"status": "ok"})
        elif self.path == "/metrics":
            self._give("text/plain", b"fake:waiting 0\nfake:running %d\n" % self.server.running)
        elif self.path == "/v1/models" and self._allowed():
            self._send(200, {"object": "list", "data": [{"id": self.server.model, "object": "model"}]})
        elif self.path != "/v1/models":
            self._refuse(404, "not_found_error", f"there is nothing at '{self.path}'")

    def do_POST(self) -> None:
        """Chat completions, whole or streamed, and the next token."""
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        if not self._allowed():
            return
        self.server.count(1)
        try:
            if self.path == "/completion":
                self._send(200, self.server.next_token(body))
            elif self.path == "/v1/completions":
                told = self.server.next_token(body)
                places: JsonValue = {"tokens": [f"token_id:{told['id']}"], "token_logprobs": [told["logprob"]]}
                self._send(200, {"choices": [{"index": 0, "logprobs": places}]})
            elif self.path == "/v1/chat/completions" and body.get("stream"):
                self._stream(self.server.chat(body))
            elif self.path == "/v1/chat/completions":
                self._send(200, self.server.chat(body))
            else:
                self._refuse(404, "not_found_error", f"there is nothing at '{self.path}'")
        except Invalid as error:
            self._refuse(400, "exceed_context_size_error", error.fact)
        finally:
            self.server.count(-1)

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the standard library's server writes every request to stderr."""

    def _allowed(self) -> bool:
        if self.headers.get("authorization") == f"Bearer {self.server.key}":
            return True
        self._refuse(401, "authentication_error", "Invalid API Key")
        return False

    def _refuse(self, status: int, kind: str, message: str) -> None:
        self._send(status, {"error": {"message": message, "type": kind, "code": status}})

    def _send(self, status: int, body: dict[str, JsonValue]) -> None:
        self._give("application/json", json.dumps(body).encode(), status)

    def _give(self, kind: str, data: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, whole: dict[str, Any]) -> None:
        """The same answer as server-sent events, one word a chunk, as OpenAI streams it."""
        choice = whole["choices"][0]
        words = choice["message"]["content"].split(" ")
        deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word if number == 0 else f" {word}"} for number, word in enumerate(words)]
        head = {**whole, "object": "chat.completion.chunk"}
        usage = head.pop("usage")
        chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
        chunks.append({**head, "choices": [], "usage": usage})
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")


def _logprobs(messages: Sequence[Mapping[str, Any]]) -> list[JsonValue]:
    """As vLLM gives them: nothing for the first token, then one entry by token id."""
    words = [word for message in messages for word in str(message["content"]).split()]
    found: list[JsonValue] = [{str(len(word)): {"logprob": -len(word) / 10, "rank": 1}} for word in words]
    return [None, *found[1:]]


def _question(text: str) -> str:
    try:
        return parse(text + answer_part("")).question
    except Invalid:
        return text


def _formed(text: str, schema: Mapping[str, Any]) -> str:
    """The text where it is JSON with the schema's properties, else the smallest JSON that the schema allows."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    names = set(schema.get("properties", {}))
    return text if isinstance(value, dict) and set(value) == names else json.dumps(_smallest(schema))


def _smallest(schema: Mapping[str, Any]) -> JsonValue:
    if "enum" in schema:
        first: JsonValue = schema["enum"][0]
        return first
    if schema["type"] == "object":
        return {name: _smallest(each) for name, each in schema["properties"].items()}
    if schema["type"] == "array":
        return [_smallest(schema["items"])] * int(schema.get("minItems", 0))
    plain: dict[str, JsonValue] = {"string": "", "integer": 0, "number": 0, "boolean": False, "null": None}
    return plain[schema["type"]]


def _places(text: str, count: int) -> list[JsonValue]:
    """Every letter as a token of probability 0.9; what is left is shared by its neighbours in the alphabet."""
    share = math.log(0.1 / max(1, count - 1))
    return [
        {
            "token": letter,
            "logprob": math.log(0.9),
            "top_logprobs": [
                {"token": chr(ord(letter) + step), "logprob": share if step else math.log(0.9)} for step in range(count)
            ],
        }
        for letter in text
    ]


def _read_table(ref: Ref, folder: Path) -> dict[str, str]:
    file = folder / ADAPTER_FILE
    if not file.is_file():
        raise Invalid(f"adapter '{ref}' has no '{ADAPTER_FILE}'", f"its folder is {folder}")
    table: dict[str, str] = json.loads(file.read_text())
    return table
