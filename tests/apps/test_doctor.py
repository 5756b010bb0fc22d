"""Each check of `noria doctor` finds its trouble, on real sockets, files and headers, and says what to type."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from noria.apps import checks, start
from noria.apps.cli import app
from noria.apps.doctor import engines, machine
from noria.apps.doctor.check import Check
from noria.apps.doctor.engines import Need
from noria.backends.machine import Card
from noria.settings import EngineSettings, Settings, load

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ROOMY = 64 * 2**30
T4 = Card("Tesla T4", 15.0, 14.0, 7.5)
L4 = Card("NVIDIA L4", 24.0, 22.0, 8.9)


class Models(BaseHTTPRequestHandler):
    """An engine that knows one model, and the key `secret`."""

    def do_GET(self) -> None:
        status = 200 if self.headers["authorization"] == "Bearer secret" else 401
        if not self.path.startswith("/v1/"):
            status = 404
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": "qwen"}]}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Models) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    start.make(tmp_path / "shop")
    return load(tmp_path / "shop" / "noria.toml")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def attached(url: str, **more: str) -> Check:
    return engines.reached("engine a", EngineSettings(kind="openai", url=url, **more), url, "a")


def test_an_attached_engine_that_is_down_wants_a_key_or_lacks_the_model(
    server: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = attached(f"http://127.0.0.1:{free_port}/v1")
    assert down.level == "fault"
    assert "connection refused" in down.found
    assert down.hint.endswith(f"curl http://127.0.0.1:{free_port}/health")
    assert "wants another key (401)" in attached(f"{server}/v1").found
    monkeypatch.setenv("A_KEY", "secret")
    assert attached(f"{server}/v1", key="A_KEY").good
    assert "does not serve 'llama'" in attached(f"{server}/v1", key="A_KEY", serves="llama").found
    assert "/v1" in attached(server, key="A_KEY").hint
    assert "'B_KEY', which is not set" in attached(f"{server}/v1", key="B_KEY").found


def test_a_taken_port_names_the_process_that_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        found = machine.port("data plane", listen)
        assert not found.good
        assert f"process {os.getpid()}" in found.found
        assert found.hint.startswith(f"kill {os.getpid()}")
    assert machine.port("data plane", listen).good


def test_memory_is_planned_of_the_file_and_the_header(shop: Settings) -> None:
    need = engines.llama_need(shop.engines["local"])
    assert need is not None
    assert need.tokens == 4 * 2048
    # SmolLM2-135M: 30 layers, 3 KV heads of 64, two bytes, key and value.
    assert need.cache_per_token == 2 * 2 * 30 * 3 * 64
    (good,) = engines.memory(shop, engines.llama_need, ROOMY)
    assert good.good
    (bad,) = engines.memory(shop, engines.llama_need, need.total - 100 * 2**20)
    assert bad.level == "fault"
    assert "out of memory" in bad.found
    assert bad.hint.startswith("context = ")
    context = int(bad.hint.split()[2])
    shorter = shop.model_copy(
        update={"engines": {"local": shop.engines["local"].model_copy(update={"context": context})}}
    )
    (fits,) = engines.memory(shorter, engines.llama_need, need.total - 100 * 2**20)
    assert fits.good
    (hopeless,) = engines.memory(shop, lambda _: Need(ROOMY * 2, 1.0, 1), ROOMY)
    assert "smaller or more quantized model" in hopeless.hint
    assert [*engines.memory(shop, engines.llama_need, None)] == []


def test_more_threads_than_cores_are_slower() -> None:
    (found,) = engines.threads("engine a", EngineSettings(kind="llamacpp", model="m.gguf", threads=64), 4)
    assert (found.level, found.hint) == ("warn", "threads = 4")
    assert [*engines.threads("engine a", EngineSettings(kind="llamacpp", model="m.gguf", threads=4), 4)] == []


def model(folder: Path, **config: object) -> EngineSettings:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return EngineSettings(kind="vllm", model=str(folder))


def test_a_model_folder_without_a_chat_template(tmp_path: Path) -> None:
    engine = model(tmp_path / "base")
    (found,) = engines.template("engine a", engine, tmp_path / "base")
    assert found.level == "warn"
    assert "-Instruct" in found.hint
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert [*engines.template("engine a", engine, tmp_path / "base")] == []


def gguf_file(file: Path, template: str | None) -> Path:
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("template", [None, " "])
def test_a_gguf_file_without_a_chat_template(tmp_path: Path, template: str | None) -> None:
    file = gguf_file(tmp_path / "base.gguf", template)
    local = EngineSettings(kind="llamacpp", model=str(file))
    for engine in (local, EngineSettings(kind="vllm", model=str(file))):
        (found,) = engines.gguf_template("engine a", engine)
        assert (found.level, "no chat template in 'base.gguf'" in found.found) == ("warn", True)
        assert "gguf-new-metadata --chat-template-file" in found.hint
    told = local.model_copy(update={"program": "llama-server", "flags": ("--chat-template", "chatml")})
    assert [*engines.gguf_template("engine a", told)] == []
    # A file of vectors is asked no questions.
    assert [*engines.gguf_template("engine a", EngineSettings(kind="infinity", model=str(file)))] == []


def test_a_gguf_file_with_a_chat_template_and_one_that_cannot_be_read_say_nothing(tmp_path: Path) -> None:
    file = gguf_file(tmp_path / "chat.gguf", "{{ messages }}")
    assert [*engines.gguf_template("engine a", EngineSettings(kind="llamacpp", model=str(file)))] == []
    assert [*engines.gguf_template("a", EngineSettings(kind="llamacpp", model="smollm2-135m-instruct"))] == []
    file.write_bytes(b"GGUF")
    assert [*engines.gguf_template("engine a", EngineSettings(kind="llamacpp", model=str(file)))] == []
    assert [*engines.gguf_template("engine a", EngineSettings(kind="vllm", model="Qwen/Qwen3-1.7B"))] == []


def test_the_doctor_tells_of_a_gguf_file_without_a_chat_template(shop: Settings, tmp_path: Path) -> None:
    file = gguf_file(tmp_path / "base.gguf", None)
    local = shop.engines["local"].model_copy(update={"model": str(file)})
    found = [*engines.checks(shop.model_copy(update={"engines": {"local": local}}))]
    assert any(each.level == "warn" and "no chat template in 'base.gguf'" in each.found for each in found)


def test_a_quantization_package_that_is_missing(tmp_path: Path) -> None:
    config = {"quantization_config": {"quant_method": "awq"}}
    engine = model(tmp_path / "awq", **config).model_copy(update={"kind": "transformers"})
    (found,) = engines.quantized("engine a", engine, config)
    assert found.hint == "pip install autoawq"
    # vLLM has kernels of its own.
    assert [*engines.quantized("engine a", model(tmp_path / "awq", **config), config)] == []


def test_types_that_the_hardware_does_not_have(tmp_path: Path) -> None:
    folder, config = tmp_path / "m", {"torch_dtype": "bfloat16"}
    engine = model(folder, **config)
    (old,) = engines.types("engine a", engine, config, folder, [T4], slow=False)
    assert (old.level, old.hint) == ("fault", 'dtype = "float16"')
    assert [*engines.types("engine a", engine, config, folder, [L4], slow=True)] == []
    (cpu,) = engines.types("engine a", engine, config, folder, [], slow=True)
    assert cpu.level == "warn"


def test_fp8_wants_the_full_weights_first(tmp_path: Path) -> None:
    class Asked(EngineSettings):
        quantization: str = "fp8"

    folder = tmp_path / "m"
    model(folder)
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(30 * 2**30)
    engine = Asked(kind="vllm", model=str(folder))
    (found,) = engines.types("engine a", engine, {}, folder, [L4], slow=False)
    assert "full weights first: 30.0 GiB" in found.found
    assert [*engines.types("engine a", engine, {}, folder, [L4, L4], slow=False)] == []
    stored = {"quantization_config": {"quant_method": "fp8"}}
    assert [*engines.types("engine a", engine, stored, folder, [L4], slow=False)] == []


def test_the_hub_s_variables(tmp_path: Path) -> None:
    def told(models: list[str], **values: str) -> list[Check]:
        return [*machine.hub(models, {"HOME": str(tmp_path), **values}.get)]

    gated = "meta-llama/Llama-3.1-8B-Instruct"
    (found,) = told([gated])
    assert "gated, and no token" in found.found
    assert told([gated], HF_TOKEN="hf_abcdefgh") == []
    assert told(["Qwen/Qwen3-1.7B"]) == []
    (bad,) = told([], HF_TOKEN="your_token_here")
    assert "does not look like a token" in bad.found
    (old,) = told([gated], HUGGING_FACE_HUB_TOKEN="hf_abcdefgh")
    assert old.level == "warn"
    (offline,) = told(["Qwen/Qwen3-1.7B"], HF_HUB_OFFLINE="1")
    assert offline.hint == "hf download Qwen/Qwen3-1.7B"
    (tmp_path / ".cache/huggingface/hub/models--Qwen--Qwen3-1.7B").mkdir(parents=True)
    assert told(["Qwen/Qwen3-1.7B"], HF_HUB_OFFLINE="1") == []


@pytest.mark.parametrize(
    ("home", "word"), [("", "empty"), ("/path/to/cache", "placeholder"), ("<folder>", "placeholder")]
)
def test_a_home_of_the_hub_that_is_none(home: str, word: str) -> None:
    found = machine.hub_home(home)
    assert not found.good
    assert word in found.found


def test_a_home_of_the_hub_that_can_be_made(tmp_path: Path) -> None:
    assert machine.hub_home(str(tmp_path / "new" / "hub")).good


def test_a_slow_processor_a_full_disk_and_a_wrong_clock() -> None:
    assert machine.processor(8, "flags : sse4_2 avx\n").level == "warn"
    assert machine.processor(8, "flags : avx avx2\n").good
    assert machine.processor(8, "").good
    assert machine.processor(1, "flags : avx2\n").level == "warn"
    assert machine.bfloat16_is_slow("flags : avx2 avx512f\n")
    assert not machine.bfloat16_is_slow("flags : avx512_bf16\n")
    assert machine.disk(10**12, 10**9).level == "fault"
    assert machine.disk(10**12, 10**10).level == "warn"
    assert machine.disk(10**12, 10**11).level == "ok"
    assert machine.clock(NOW, NOW.timestamp()).good
    assert not machine.clock(datetime(1970, 1, 2, tzinfo=UTC), NOW.timestamp()).good


def test_the_whole_tells_of_a_killed_tree_an_old_error_and_a_silent_spark(shop: Settings, free_port: int) -> None:
    (shop.state / "logs").mkdir(parents=True)
    (shop.state / "logs" / "engine-local.log").write_text("starting\nRuntimeError: No CUDA GPUs are available\n")
    (shop.state / "up.json").write_text('{"pid": 4194305}')
    text = shop.file.read_text().replace('spark = "embedded"', f'spark = "sc://127.0.0.1:{free_port}"')
    shop.file.write_text(text)
    told = {each.name: each for each in checks.examine(shop.root)}
    assert told["noria up"].level == "fault"
    assert told["log engine-local.log:2"].level == "warn"
    assert "nobody answers" in told["Spark"].found
    done = CliRunner().invoke(app, ["doctor", "--json", "--project", str(shop.root)])
    assert done.exit_code == 1
    levels = {each["check"]: each["level"] for each in json.loads(done.stdout)}
    assert levels["noria up"] == "fault"


def test_an_address_that_is_none_is_told_and_is_not_said_to_be_in_use() -> None:
    assert "is no address" in attached("http://127.0.0.1:99999/v1").found
    assert "is in use" not in machine.port("data plane", "192.0.2.1:8000").found
    assert not machine.port("data plane", "192.0.2.1:8000").good
