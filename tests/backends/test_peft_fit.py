"""What a machine cannot train is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_llama import tiny_model

from noria.backends import peft_fit
from noria.backends.gguf_header import read_header
from noria.backends.llamacpp import model_path
from noria.backends.peft_fit import GIB, Device
from noria.errors import Invalid, Unavailable
from noria.settings import EngineSettings, FullRecipe, LoraRecipe, QloraRecipe

CPU = Device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


def test_devices_are_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peft_fit.device_of("cpu:2") == Device("cpu", 2)
    assert peft_fit.device_of("cpu:2", sharded=True) == Device("cpu", 2, sharded=True)
    with pytest.raises(Invalid, match="sharded = true spreads weights over several processes"):
        peft_fit.device_of("cpu", sharded=True)
    monkeypatch.setattr(peft_fit, "cuda_devices", lambda: 0)
    assert peft_fit.device_of("auto") == CPU
    with pytest.raises(Invalid, match="'cuda' is not there: this machine has no CUDA devices"):
        peft_fit.device_of("cuda")
    monkeypatch.setattr(peft_fit, "cuda_devices", lambda: 4)
    assert peft_fit.device_of("auto") == Device("cuda")
    assert peft_fit.device_of("cuda:4") == Device("cuda", 4)
    with pytest.raises(Invalid, match="'cuda:8' is not there: this machine has 4 CUDA devices"):
        peft_fit.device_of("cuda:8")


def test_qlora_on_a_processor_is_refused_unless_lora_will_do(model: Path) -> None:
    with pytest.raises(Invalid, match="'qlora' needs a CUDA device") as caught:
        peft_fit.check(model, QloraRecipe(max_length=256), CPU)
    assert 'on_cpu = "lora"' in caught.value.hint
    peft_fit.check(model, QloraRecipe(max_length=256, on_cpu="lora"), CPU)


def test_only_frozen_weights_are_spread(model: Path) -> None:
    two = Device("cpu", 2, sharded=True)
    peft_fit.check(model, LoraRecipe(max_length=256), two)
    for recipe in (FullRecipe(max_length=256), QloraRecipe(max_length=256, on_cpu="lora")):
        with pytest.raises(Invalid, match=f"this one is '{recipe.kind}'"):
            peft_fit.check(model, recipe, two)


def test_rows_longer_than_the_context_are_refused(model: Path) -> None:
    peft_fit.check(model, LoraRecipe(max_length=512), CPU)
    with pytest.raises(Invalid, match=r"max_length 513 is more than the 512 tokens that 'tiny\.gguf' reads"):
        peft_fit.check(model, LoraRecipe(max_length=513), CPU)


def test_a_base_that_does_not_fit_into_memory_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft_fit, "free_memory", lambda: GIB // 4)
    with pytest.raises(Invalid, match=r"'tiny\.gguf' as 'full' needs about 0\.. GiB of memory, 0\.2 GiB are free"):
        peft_fit.check(model, FullRecipe(), CPU)


def test_more_is_needed_for_more() -> None:
    packaged = model_path(EngineSettings(kind="llamacpp", model="smollm2-135m-instruct"))
    with packaged.open("rb") as file:
        header = read_header(file)
    assert header.parameters == 134_515_008
    lora, full = peft_fit.memory(header, LoraRecipe()), peft_fit.memory(header, FullRecipe())
    assert 1 * GIB < lora < 5 * GIB
    assert full > lora + 3 * 4 * header.parameters / 2


def test_a_full_disk_is_told_before(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peft_fit.check_disk(model, FullRecipe(), tmp_path / "not" / "yet" / "there")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    with pytest.raises(Unavailable, match=r"the disk is full: the training writes about . MB, 0 MB are free"):
        peft_fit.check_disk(model, LoraRecipe(), tmp_path)
