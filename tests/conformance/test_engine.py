"""What every engine promises, whatever its make. The fake and an attached server always, llama.cpp with `slow`.

With --engine NAME only that one is asked: launched from its environment, or attached with --url (outside.py).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import llama_server
import pytest
from outside import BENCHES, Bench, attached
from pydantic import JsonValue
from tiny_encoder import WIDTH, tiny_encoder

from noria import adapters as folders
from noria.backends import encoder, fake, llamacpp, served
from noria.backends.encoder_model import Head
from noria.backends.engine_probe import claimed, probe
from noria.errors import Invalid, NotFound, Unavailable
from noria.evaluation.likelihood import Scorer
from noria.ports import Engine, EngineKind, Measured, Swaps
from noria.settings import EngineSettings
from noria.types import Form, Load, Message, Ref

QUESTION = "Which river flows through Vienna?"
CONTEXT = 128
"""Tokens per slot; llama.cpp rounds it up to 256."""
STRANGER = Ref(kind="adapter", name="stranger", digest="f" * 16)


def refs() -> list[Ref]:
    return [Ref(kind="adapter", name=name, digest=letter * 16) for name, letter in (("first", "a"), ("second", "b"))]


def fake_adapter(folder: Path, seed: int) -> None:
    (folder / fake.ADAPTER_FILE).write_text(json.dumps({QUESTION: f"Answer number {seed}."}))


def random_lora(folder: Path, seed: int) -> None:
    """A LoRA on every query and value projection of SmolLM2-135M, far too large to go unnoticed."""
    import gguf
    import numpy as np

    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(folder / llamacpp.ADAPTER_FILE, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 8.0)
    for layer in range(30):
        for name, rows in (("attn_q", 576), ("attn_v", 192)):
            a = random.normal(0, 0.05, (4, 576)).astype(np.float32)
            b = random.normal(0, 0.05, (rows, 4)).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_a", a)
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def launched(
    folder: Path, kind: EngineKind, model: str, write: Callable[[Path, int], None], program: str | None = None
) -> Iterator[Bench]:
    # One slot: every request meets what the one before has left there.
    settings = EngineSettings(kind="launched", model=model, slots=1, context=CONTEXT, threads=1, program=program)
    adapters = {}
    for seed, ref in enumerate(refs()):
        adapters[ref] = folder / ref.name
        adapters[ref].mkdir()
        write(adapters[ref], seed)
    log = folder / "logs" / "engine.log"
    engine = kind.start(settings, adapters, log)
    try:
        yield Bench(kind, settings, adapters, engine, log)
    finally:
        engine.close()


@contextmanager
def fake_bench(folder: Path) -> Iterator[Bench]:
    yield from launched(folder, fake.open(), "fake", fake_adapter)


@contextmanager
def llama_bench(folder: Path) -> Iterator[Bench]:
    yield from launched(folder, llamacpp.open(), "smollm2-135m-instruct", random_lora)


@contextmanager
def binary_bench(folder: Path) -> Iterator[Bench]:
    """llama.cpp by a `llama-server` of the user's own."""
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {llama_server.__file__} "$@"\n')
    program.chmod(0o755)
    yield from launched(folder, llamacpp.open(), "smollm2-135m-instruct", random_lora, str(program))


def random_head(folder: Path, seed: int, width: int = WIDTH) -> None:
    """Six classes by lot."""
    import numpy as np

    random = np.random.default_rng(seed)
    labels = tuple(f"{'first' if seed else 'second'} class {number}" for number in range(6))
    Head(random.normal(0, 1, (6, width)).astype(np.float32), np.zeros(6, np.float32), labels, several=False).save(
        folder
    )
    folders.mark(folder, "head")


@contextmanager
def encoder_bench(folder: Path) -> Iterator[Bench]:
    """A tiny random BERT."""
    yield from launched(folder, encoder.open(), str(tiny_encoder(folder / "tiny")), random_head)


@contextmanager
def minilm_bench(folder: Path) -> Iterator[Bench]:
    yield from launched(folder, encoder.open(), "all-minilm-l6-v2", partial(random_head, width=384))


@contextmanager
def attached_bench(folder: Path) -> Iterator[Bench]:
    own = EngineSettings(kind="fake", model="fake", context=CONTEXT)
    server = fake.open().start(own, {}, folder / "server.log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVER_KEY", server.endpoint.key)
        settings = EngineSettings(kind="vllm", url=server.endpoint.url, key="SERVER_KEY")
        kind = served.open_vllm()
        engine = kind.start(settings, {}, folder / "engine.log")
        try:
            yield Bench(kind, settings, {}, engine, folder / "engine.log")
        finally:
            engine.close()
            assert server.alive(), "an attached server must be left running"
            server.close()


HERE = [
    pytest.param(fake_bench, id="fake"),
    pytest.param(attached_bench, id="attached"),
    pytest.param(encoder_bench, id="encoder"),
    pytest.param(minilm_bench, id="minilm", marks=pytest.mark.slow),
    pytest.param(llama_bench, id="llamacpp", marks=pytest.mark.slow),
    pytest.param(binary_bench, id="llama-server", marks=[pytest.mark.slow, pytest.mark.long]),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bench" not in metafunc.fixturenames:
        return
    names, url = metafunc.config.getoption("--engine"), metafunc.config.getoption("--url")
    if url is not None:
        there = [pytest.param(partial(attached, name, url), id=name) for name in names]
    else:
        there = [pytest.param(BENCHES[name], id=name) for name in names]
    metafunc.parametrize("bench", there or HERE, indirect=True, scope="module")


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    make: Callable[[Path], AbstractContextManager[Bench]] = request.param
    with make(tmp_path_factory.mktemp("bench")) as made:
        yield made


@pytest.fixture
def writer(bench: Bench) -> Bench:
    """An engine that writes texts: an encoder names classes, and has none of its own."""
    if not bench.kind.caps.text:
        pytest.skip("it writes no text")
    return bench


@pytest.fixture
def talker(bench: Bench) -> Bench:
    """One that answers conversations, be it with a class."""
    if not bench.kind.caps.text and not bench.kind.caps.heads:
        pytest.skip("it answers no conversations")
    return bench


def asked(text: str = QUESTION) -> list[Message]:
    return [Message(role="user", content=text)]


def raw(engine: Engine, adapter: Ref | None) -> Any:
    """What a gateway's own request with `extra` gets: the choices, with log-probabilities where there are some."""
    body = {
        "model": engine.endpoint.model,
        "messages": [message.model_dump() for message in asked()],
        "max_tokens": 8,
        "temperature": 0,
        "logprobs": True,
        **engine.extra(adapter),
    }
    headers = {"Authorization": f"Bearer {engine.endpoint.key}"}
    reply = httpx.post(f"{engine.endpoint.url}/chat/completions", json=body, headers=headers, timeout=60)
    reply.raise_for_status()
    # Transformers adds the revision.
    assert reply.json()["model"].removesuffix("@main") == body["model"]
    return reply.json()["choices"]


def test_the_base_has_a_name_by_content(bench: Bench) -> None:
    base, quantization = bench.kind.base(bench.settings)
    assert base.kind == "base"
    assert base.name == bench.engine.endpoint.model or Path(bench.engine.endpoint.model).is_dir()
    assert quantization
    assert bench.kind.base(bench.settings) == (base, quantization)


def test_an_answer_counts_its_tokens(writer: Bench) -> None:
    answer = writer.engine.answer(asked(), None, 64, ())
    assert answer.text
    assert answer.prompt_tokens is not None
    assert answer.prompt_tokens > 0
    assert answer.completion_tokens is not None
    assert 0 < answer.completion_tokens <= 64
    assert writer.engine.answer(asked(), None, 64, ()).text == answer.text


def test_an_answer_ends_at_its_limit(writer: Bench) -> None:
    answer = writer.engine.answer(asked(), None, 1, ())
    assert answer.finish_reason == "length"
    assert answer.completion_tokens == 1


def test_an_answer_ends_before_its_stop_word(writer: Bench) -> None:
    whole = writer.engine.answer(asked(), None, 24, ()).text
    word = whole.split()[1]
    cut = writer.engine.answer(asked(), None, 24, (word,)).text
    assert word not in cut
    assert cut == whole.partition(word)[0]


def test_an_answer_has_the_form_that_was_asked_for(writer: Bench) -> None:
    """Also where the model would never write it by itself; what is cut says so."""
    scores: list[JsonValue] = [7, 8]
    form = Form({
        "type": "object", "additionalProperties": False, "required": ["reason", "score"],
        "properties": {"reason": {"type": "string", "maxLength": 20}, "score": {"type": "integer", "enum": scores}},
    })  # fmt: skip
    if not writer.kind.caps.schema:
        with pytest.raises(Invalid, match="schema"):
            writer.engine.answer(asked(), None, 64, (), form)
        return
    answer = writer.engine.answer(asked(), None, 64, (), form)
    said = json.loads(answer.text)
    assert set(said) == {"reason", "score"}
    assert said["score"] in scores
    assert len(said["reason"]) <= 20
    assert answer.finish_reason == "stop"
    assert answer.tokens == ()
    assert writer.engine.answer(asked(), None, 1, (), form).finish_reason == "length"


def test_an_answer_tells_the_likeliest_tokens_where_they_are_wanted(writer: Bench) -> None:
    if not writer.kind.caps.logprobs:
        with pytest.raises(Invalid, match="likeliest"):
            writer.engine.answer(asked(), None, 6, (), Form(choices=5))
        return
    answer = writer.engine.answer(asked(), None, 6, (), Form(choices=5))
    assert answer.tokens
    assert answer.text.startswith(answer.tokens[0][0][0].strip()[:1])
    for taken, *likely in answer.tokens:
        assert len(likely) == 5
        assert taken in likely
        assert 0.2 < sum(math.exp(logprob) for _, logprob in likely) <= 1 + 1e-6


def test_an_answer_may_go_on_from_what_is_computed(writer: Bench) -> None:
    answers = [writer.engine.answer(asked(), None, 8, (), Form(reuse=True)) for _ in range(3)]
    assert all(answer.text for answer in answers)
    assert writer.engine.answer(asked(), None, 8, ()).text == writer.engine.answer(asked(), None, 8, ()).text


def test_several_threads_may_ask(writer: Bench) -> None:
    questions = [f"Say the word number {number} please." for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda text: writer.engine.answer(asked(text), None, 4, ()), questions))
    assert all(answer.text for answer in answers)


def test_a_prompt_longer_than_the_context_is_invalid(talker: Bench) -> None:
    if not talker.kind.caps.bounded:
        pytest.skip("such a prompt would end it")
    with pytest.raises(Invalid, match=r"exceeds|context length") as caught:
        talker.engine.answer(asked("word " * (4 * talker.settings.context)), None, 4, ())
    assert caught.value.hint


def test_an_unknown_adapter_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound, match="stranger"):
        bench.engine.extra(STRANGER)
    with pytest.raises(NotFound, match="stranger"):
        bench.engine.answer(asked(), STRANGER, 4, ())


def test_each_adapter_answers_for_itself_and_the_base_stays_clean(talker: Bench) -> None:
    """The base's log-probabilities before and after an adapter had the same slot must be the same numbers."""
    bench = talker
    before = raw(bench.engine, None)
    for ref in bench.adapters:
        tuned = raw(bench.engine, ref)
        assert tuned != before
        assert raw(bench.engine, None) == before
        assert raw(bench.engine, ref) == tuned
    assert len({json.dumps(bench.engine.extra(ref)) for ref in (None, *bench.adapters)}) == 1 + len(bench.adapters)


def test_the_next_token_depends_on_tokens_and_adapter_only(bench: Bench) -> None:
    tokens = [1, 4093, 198, 504, 3575, 282]
    if not bench.kind.caps.exact_tokens:
        with pytest.raises(Invalid):
            bench.engine.next_token(tokens, None)
        return
    first = bench.engine.next_token(tokens, None)
    assert first[1] <= 0.0
    tuned = {ref: bench.engine.next_token(tokens, ref) for ref in bench.adapters}
    assert first not in tuned.values()
    assert bench.engine.next_token(tokens[:3], None) != first
    assert bench.engine.next_token(tokens, None) == first
    with pytest.raises(Invalid, match="empty"):
        bench.engine.next_token([], None)


def test_adapters_are_checked_before_the_start(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="stranger"):
        bench.kind.start(bench.settings, {STRANGER: tmp_path}, tmp_path / "log")


def test_a_closed_engine_says_so(bench: Bench) -> None:
    engine = bench.again()
    assert engine.alive()
    engine.close()
    engine.close()
    assert not engine.alive()
    if not bench.kind.caps.text and not bench.kind.caps.heads:
        return
    with pytest.raises(Unavailable) as caught:
        engine.answer(asked(), None, 4, ())
    assert caught.value.hint


def test_the_log_probability_of_a_text_is_given_where_the_kind_says_so(bench: Bench) -> None:
    engine = bench.engine
    if not bench.kind.caps.prompt_logprobs:
        return
    assert isinstance(engine, Scorer)
    adapter = next(iter(bench.adapters), None)
    shorter, few = engine.logprob(asked(), "The Danube", adapter)
    longer, more = engine.logprob(asked(), "The Danube flows there", adapter)
    assert longer < shorter < 0
    assert more > few > 0


def test_an_answer_is_one_of_the_classes_where_the_kind_can_hold_it_to_them(bench: Bench) -> None:
    names = ("first thing", "second thing", "yes")
    for adapter in (None, *bench.adapters):
        if not bench.kind.caps.choice or (adapter is not None and bench.kind.caps.heads):
            continue
        answer = bench.engine.answer(asked(), adapter, 16, (), Form(among=names))
        assert answer.text.strip() in names
        assert answer.finish_reason == "stop"


def test_a_head_names_its_classes_with_probabilities(bench: Bench) -> None:
    if not bench.kind.caps.heads:
        return
    for ref, folder in bench.adapters.items():
        head = Head.load(folder)
        answer = bench.engine.answer(asked(), ref, 8, (), Form(choices=6))
        assert answer.text in head.labels
        assert answer.completion_tokens == 1
        ((taken, *likely),) = answer.tokens
        assert taken == likely[0]
        assert {label for label, _ in likely} == set(head.labels)
        assert math.isclose(sum(math.exp(logprob) for _, logprob in likely), 1, abs_tol=1e-6)
    assert bench.engine.answer(asked(), None, 8, ()).text == ""


def test_heads_may_be_asked_side_by_side(bench: Bench) -> None:
    if not bench.kind.caps.heads:
        return
    jobs = [(f"Say the word number {'please ' * (number % 5)}.", ref) for number in range(20) for ref in bench.adapters]
    one = [bench.engine.answer(asked(text), ref, 8, (), Form(choices=1)) for text, ref in jobs]
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda job: bench.engine.answer(asked(job[0]), job[1], 8, (), Form(choices=1)), jobs))
    for alone, beside in zip(one, many, strict=True):
        assert alone.text == beside.text
        assert abs(alone.tokens[0][0][1] - beside.tokens[0][0][1]) < 1e-4


def test_what_a_kind_claims_is_seen_in_its_answers(bench: Bench) -> None:
    """Chat, streams, log-probabilities, schemas, tools, vectors, ranks, classes: a status proves nothing."""
    adapter = next(iter(bench.adapters), None) if bench.kind.caps.heads else None
    found = probe(bench.engine.endpoint, bench.engine.extra(adapter))
    for job, engine in bench.jobs.items():
        assert job in probe(engine.endpoint), f"{job} is not there"
        found |= {job}
    assert claimed(bench.kind.caps) - found <= switched_off(bench), f"seen were {sorted(found)}"


def switched_off(bench: Bench) -> set[str]:
    """What an engine can do and was not started for, as far as that is known."""
    if bench.settings.url is None:
        return set()
    # Of a server that somebody else has started nothing is known beyond chat.
    return {"tools", "embeddings", "rerank", "classify"}


def test_an_adapter_comes_and_goes_while_the_engine_runs(bench: Bench) -> None:
    engine = bench.engine
    for ref, folder in bench.spare.items():
        assert isinstance(engine, Swaps)
        before = raw(engine, None)
        engine.load(ref, folder)
        tuned = raw(engine, ref)
        assert tuned != before
        assert tuned not in [raw(engine, other) for other in bench.adapters]
        engine.unload(ref)
        with pytest.raises(NotFound, match=ref.name):
            raw(engine, ref)
        assert raw(engine, None) == before


def test_how_busy_it_is_can_be_read(bench: Bench) -> None:
    if not isinstance(bench.engine, Measured):
        return
    load = bench.engine.measure()
    if load == Load():
        return
    assert load.running == 0.0
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(bench.engine.answer, asked("Tell a long story about a river."), None, 64, ())
        seen = []
        while not answer.done():
            seen.append(bench.engine.measure().running or 0.0)
        told = answer.result()
    assert all(running in (0.0, 1.0) for running in seen)
    after = bench.engine.measure()
    if load.completion_tokens is not None:
        assert after.completion_tokens == load.completion_tokens + (told.completion_tokens or 0)
    if len(seen) > 20:
        assert max(seen) == 1.0, "it was at work for long enough to be seen"
