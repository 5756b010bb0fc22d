"""Command lines of engines that need a GPU, as golden files: held to the versions that docs/engines.md names.

After a wanted change: PYTHONPATH=.:tests/backends python tests/backends/test_engine_commands.py
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from noria.backends import llama_binary, served, served_kinds
from noria.backends.llamacpp_server import ServerConfig
from noria.errors import Invalid
from noria.settings import EngineSettings
from noria.types import Ref

GOLDEN = Path(__file__).parent / "engine_commands"
REMOTE = ("vllm", "sglang", "aphrodite", "lmdeploy", "tgi", "infinity", "transformers")
ADAPTER = Ref(kind="adapter", name="helpdesk", digest="0123456789abcdef")
FULL: Mapping[str, object] = {
    "slots": 16, "context": 8192, "device": "cuda", "gpus": 2, "dtype": "bfloat16", "quantization": "awq",
    "memory_share": 0.85, "remote_code": True, "flags": ("--seed", "7"),
}  # fmt: skip


def a_model(root: Path) -> Path:
    folder = root / "qwen3-1.7b"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def a_lora(root: Path, rank: int) -> Path:
    folder = root / "lora"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def lines(kind: str, root: Path) -> str:
    """Both ways to launch it, plainly and with every setting; the folders of this machine are not in it."""
    model = str(a_model(root))
    caps = served_kinds.MAKES[kind].caps
    adapters = {ADAPTER: a_lora(root, 24)} if caps.lora else {}
    plain = EngineSettings(kind=kind, model=model)
    tools = {"tools": "hermes"} if caps.tools else {}
    full = EngineSettings.model_validate(
        {"kind": kind, "model": model, "program": f"/opt/{kind}/bin/python", **FULL, **tools}
    )
    told = []
    for title, settings, loaded in (("plain", plain, {}), ("full", full, adapters)):
        told.append(f"# {title}, process\n{shlex.join(served.command(settings, loaded, 8100))}")
        variables = served.variables(settings, loaded)
        told.append("\n".join(f"{name}={value}" for name, value in sorted(variables.items())))
        if served_kinds.MAKES[kind].image:
            told.append(f"# {title}, container\n{shlex.join(served.container(settings, loaded, 8100, 'noria-gpu'))}")
    return "\n".join(told).replace(str(root), "/models") + "\n"


@pytest.mark.parametrize("kind", REMOTE)
def test_command_lines_are_as_they_were(kind: str, tmp_path: Path) -> None:
    assert lines(kind, tmp_path) == (GOLDEN / f"{kind}.txt").read_text()


@pytest.mark.parametrize("kind", REMOTE)
def test_a_process_listens_on_the_loopback_alone_and_calls_nobody(kind: str, tmp_path: Path) -> None:
    settings = EngineSettings(kind=kind, model=str(a_model(tmp_path)))
    line = served.command(settings, {}, 8100)
    assert "127.0.0.1" in line
    assert "0.0.0.0" not in line
    assert "8100" in line
    assert "--trust-remote-code" not in line
    assert served.variables(settings, {})["HF_HUB_OFFLINE"] == "1"
    if served_kinds.MAKES[kind].image:
        container = served.container(settings, {}, 8100)
        published = container[container.index("-p") + 1]
        assert published.startswith("127.0.0.1:8100:")


def test_a_container_sees_the_files_behind_the_links_of_the_hub_s_cache(tmp_path: Path) -> None:
    whole = a_model(tmp_path).resolve()
    snapshot = whole / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../config.json")
    line = served.container(EngineSettings(kind="vllm", model=str(snapshot)), {}, 8100)
    assert line[line.index("-v") + 1] == f"{whole}:/model:ro"
    assert "/model/snapshots/0123" in line


def test_an_engine_reserves_room_for_adapters_only_where_it_is_to_take_some(tmp_path: Path) -> None:
    model = str(a_model(tmp_path))
    none = served.command(EngineSettings(kind="vllm", model=model), {}, 1)
    assert "--enable-lora" not in none
    later = served.command(EngineSettings(kind="vllm", model=model, loras=3), {}, 1)
    assert later[later.index("--max-loras") + 1] == "3"
    assert later[later.index("--max-lora-rank") + 1] == "32"
    high = served.command(EngineSettings(kind="vllm", model=model, loras=3), {ADAPTER: a_lora(tmp_path, 100)}, 1)
    assert high[high.index("--max-loras") + 1] == "4"
    assert high[high.index("--max-lora-rank") + 1] == "128"


def test_the_cache_of_transformers_is_always_bounded(tmp_path: Path) -> None:
    model = str(a_model(tmp_path))
    for slots, context, blocks in ((1, 128, 16), (4, 2048, 256), (16, 8192, 4096)):
        line = served.command(EngineSettings(kind="transformers", model=model, slots=slots, context=context), {}, 1)
        assert int(line[line.index("--cb-num-blocks") + 1]) == blocks


def test_an_unknown_kind_and_one_without_an_image_say_so(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="'llamacpp'"):
        served.command(EngineSettings(kind="llamacpp", model="m"), {}, 1)
    settings = EngineSettings(kind="transformers", model=str(a_model(tmp_path)))
    with pytest.raises(Invalid, match="no image"):
        served.container(settings, {}, 1)
    own = settings.model_copy(update={"image": "registry.example/transformers:1", "container": "podman"})
    assert served.container(own, {}, 1)[0] == "podman"


NEW = """-c,    --ctx-size N   size of the prompt context
-fa,   --flash-attn [on|off|auto]      set Flash Attention use
--no-webui    disable the web UI
-cram, --cache-ram N   maximum cache size in MiB
--slots, --no-slots    expose slots monitoring endpoint
--lora-scaled FNAME:SCALE,...   path to LoRA adapter with user defined scaling
"""
OLD = """-fa, --flash-attn   enable Flash Attention (default: disabled)
--lora-scaled FNAME SCALE   path to LoRA adapter with user defined scaling S
"""
CONFIG = ServerConfig(
    model="/m.gguf", alias="m", slots=4, context=2048, threads=2, key="k", adapters=("/a.gguf", "/b.gguf"), ready=""
)


def test_a_llama_server_gets_the_flags_that_its_build_knows() -> None:
    on = EngineSettings(kind="llamacpp", model="m.gguf", program="llama-server", device="cuda", flags=("--mlock",))
    new = llama_binary.command(on, CONFIG, 8100, NEW)
    assert shlex.join(new) == (
        "llama-server -m /m.gguf -a m --host 127.0.0.1 --port 8100 -np 4 -c 8192 -t 2 --metrics -ngl 999 -fa auto "
        "--no-webui --slots --cache-ram 0 --lora-scaled /a.gguf:0.0,/b.gguf:0.0 --mlock"
    )
    old = llama_binary.command(on, CONFIG, 8100, OLD)
    assert shlex.join(old) == (
        "llama-server -m /m.gguf -a m --host 127.0.0.1 --port 8100 -np 4 -c 8192 -t 2 --metrics -ngl 999 -fa "
        "--lora-scaled /a.gguf 0.0 --lora-scaled /b.gguf 0.0 --mlock"
    )
    assert "-fa" not in llama_binary.command(on.model_copy(update={"device": "cpu"}), CONFIG, 8100, OLD)
    with pytest.raises(Invalid, match="no adapters"):
        llama_binary.command(on, CONFIG, 8100, "")


def main() -> None:
    """Write the golden files anew."""
    GOLDEN.mkdir(exist_ok=True)
    for kind in REMOTE:
        with tempfile.TemporaryDirectory() as root:
            (GOLDEN / f"{kind}.txt").write_text(lines(kind, Path(root)))


if __name__ == "__main__":
    main()
