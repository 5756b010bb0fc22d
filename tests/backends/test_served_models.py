"""Which model an outside engine is given: folders, GGUF files, the hub's cache, and what is missing in each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from noria.backends import served_models
from noria.errors import Invalid, NotFound, Unavailable
from noria.settings import EngineSettings
from noria.types import Ref

COMMIT = "0123abcd" * 5
ADAPTER = Ref(kind="adapter", name="first", digest="a" * 16)


def on(model: str | Path) -> EngineSettings:
    return EngineSettings(kind="vllm", model=str(model))


def a_snapshot(home: Path, name: str, weights: str | None = "weights") -> Path:
    """A model as huggingface_hub keeps it: links to files that are named by their content."""
    place = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / COMMIT
    for folder in (snapshot, place / "refs", place / "blobs"):
        folder.mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    files = {"config.json": "{}"} | ({} if weights is None else {"model.safetensors": weights})
    for file, content in files.items():
        blob = place / "blobs" / hashlib.sha256(content.encode()).hexdigest()
        blob.write_text(content)
        (snapshot / file).symlink_to(blob)
    return snapshot


def test_a_model_of_the_hub_is_found_in_its_cache_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    snapshot = a_snapshot(tmp_path, "Qwen/Qwen3-1.7B")
    assert served_models.folder(on("Qwen/Qwen3-1.7B")) == snapshot
    assert served_models.name_of(on("Qwen/Qwen3-1.7B")) == "Qwen3-1.7B"


def test_one_that_is_not_there_says_how_to_fetch_it_and_what_a_gated_one_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(Unavailable, match="not on this machine") as caught:
        served_models.folder(on("meta-llama/Llama-3.1-8B-Instruct"))
    hint = str(caught.value.hint)
    assert "hf download meta-llama/Llama-3.1-8B-Instruct" in hint
    assert "HF_TOKEN" in hint
    assert "licence" in hint
    monkeypatch.setenv("HF_TOKEN", "set")
    with pytest.raises(Unavailable) as caught:
        served_models.folder(on("meta-llama/Llama-3.1-8B-Instruct"))
    assert "HF_TOKEN" not in str(caught.value.hint)
    a_snapshot(tmp_path, "half/fetched", weights=None)
    with pytest.raises(Unavailable, match="no weights"):
        served_models.folder(on("half/fetched"))


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
@pytest.mark.parametrize("value", ["", " ", "/path/to/your/cache"])
def test_a_placeholder_for_the_cache_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(Invalid, match=variable) as caught:
        served_models.folder(on("Qwen/Qwen3-1.7B"))
    assert f"unset {variable}" in str(caught.value.hint)


def test_a_folder_needs_no_hub_and_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "")
    with pytest.raises(Invalid, match=r"no config\.json"):
        served_models.folder(on(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert served_models.folder(on(tmp_path)) == tmp_path
    with pytest.raises(NotFound, match="no model 'nowhere'"):
        served_models.folder(on("nowhere"))


def test_the_digest_is_the_same_whether_a_file_or_a_link_of_the_hub_holds_it(tmp_path: Path) -> None:
    snapshot = a_snapshot(tmp_path, "some/model")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in snapshot.iterdir():
        (copy / file.name).write_text(file.read_text())
    digest = served_models.digest_of(copy)
    assert served_models.digest_of(snapshot) == digest
    (copy / "model.safetensors").write_text("Weights")
    assert served_models.digest_of(copy) != digest


@pytest.mark.parametrize(
    ("config", "told", "precision"),
    [
        ({"dtype": "bfloat16"}, {}, "bfloat16"),
        ({"torch_dtype": "float16"}, {}, "float16"),
        ({"torch_dtype": "float16", "quantization_config": {"quant_method": "awq"}}, {}, "awq"),
        ({"dtype": "bfloat16"}, {"dtype": "float32"}, "float32"),
        ({"dtype": "bfloat16"}, {"quantization": "fp8", "dtype": "bfloat16"}, "fp8"),
        ({}, {}, "unknown"),
    ],
)
def test_the_precision_is_the_settings_or_the_models(
    tmp_path: Path, config: dict[str, object], told: dict[str, str], precision: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = EngineSettings.model_validate({"kind": "vllm", "model": str(tmp_path), **told})
    assert served_models.precision(settings, tmp_path) == precision


def test_a_lora_needs_its_rank_and_its_weights(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"no readable 'adapter_config\.json'"):
        served_models.lora_rank(ADAPTER, tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 24}))
    with pytest.raises(Invalid, match=r"adapter_model\.safetensors"):
        served_models.lora_rank(ADAPTER, tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert served_models.lora_rank(ADAPTER, tmp_path) == 24


@pytest.mark.parametrize("config", ["{", "[]", '{"quantization_config": "awq"}'])
def test_a_damaged_config_is_told(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(Invalid, match="no readable config"):
        served_models.precision(on(tmp_path), tmp_path)
