"""`noria fit` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from noria.apps.cli import app
from noria.errors import Invalid, NoriaError, NotFound

pytestmark = pytest.mark.slow


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["fit", *words])
    if isinstance(done.exception, NoriaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def told(*words: str) -> Any:
    return json.loads(run(*words, "--json"))


def test_the_shape_of_its_json_is_fixed() -> None:
    found = told("llama-3.1-8b", "--device", "2xH100", "--context", "16000", "--concurrency", "2")
    assert (found["model"], found["context"], found["concurrency"]) == ("llama-3.1-8b", 16000, 2)
    assert found["device"]["name"] == "2x H100 80 GB"
    assert found["device"]["memory_gib"] == pytest.approx(158.4)
    assert len(found["rows"]) == 13
    for row in found["rows"]:
        assert {"precision", "weights_gib", "kv_gib", "total_gib", "fits", "command"} <= set(row)
        assert isinstance(row["fits"], bool)
    half = next(row for row in found["rows"] if row["precision"] == "bf16")
    assert half["kv_gib"] == pytest.approx(2 * 1.95, rel=0.01)
    assert half["nominal_gb"] == pytest.approx(16.06, rel=0.001)
    assert found["gated"] is True
    assert "hi" in found["languages"]


def test_people_get_a_table_a_bar_and_a_command() -> None:
    shown = run("qwen3-14b", "--device", "L4")
    assert "best that fits: Q6_K" in shown
    assert "llama-server -m Qwen3-14B-Q6_K.gguf -c 32768 -np 4" in shown
    assert "[engines.local]" in shown
    assert "█" in shown
    assert "2x L4 would do" in shown
    assert "the next larger, qwen3-32b" in shown
    assert "HF_TOKEN" in run("llama-3.2-1b", "--device", "T4")
    nothing = run("llama-3.1-70b", "--device", "L4")
    assert "nothing fits as asked" in nothing
    assert len(max(run("llama-3.1-405b", "--device", "CPU=0.0001GiB").splitlines(), key=len)) < 300
    assert "would with" in nothing


def test_a_name_that_states_its_precision_is_planned_in_it() -> None:
    assert [row["precision"] for row in told("Qwen/Qwen2-0.5B-Instruct-AWQ", "--device", "T4")["rows"]] == ["awq"]
    only = told("qwen3-8b", "--device", "T4", "--precision", "q4_k_m", "--precision", "AWQ")["rows"]
    assert [row["precision"] for row in only] == ["Q4_K_M", "awq"]


def test_without_a_model_it_chooses_one() -> None:
    code = told("--use", "code", "--device", "rtx-4090")["models"]
    assert "mistral-7b" in {row["model"] for row in code}
    sizes = [row["parameters"] for row in code if row["best"]]
    assert sizes == sorted(sizes, reverse=True)
    assert all("code" in row["uses"] for row in code)
    small = told("--use", "light", "--device", "CPU=8GiB", "--concurrency", "1")["models"]
    light = {row["model"] for row in small if row["best"]}
    assert "phi-3-mini-4k" in light
    strong = {row["model"] for row in told("--use", "strong", "--device", "8xH100")["models"]}
    assert {"llama-3.1-70b", "llama-3.1-405b"} <= strong
    french = {row["model"] for row in told("--use", "chat", "--language", "fr", "--device", "H100")["models"]}
    assert "mixtral-8x7b" in french
    assert "phi-3-mini-4k" not in french
    assert "bge-reranker-v2-m3" in run("--use", "rerank", "--device", "T4")


def test_wrong_words_are_told_with_the_nearest() -> None:
    with pytest.raises(NotFound) as missing:
        run("llama-3.1-8", "--device", "H100")
    assert missing.value.hint == "did you mean 'llama-3.1-8b'?"
    with pytest.raises(NotFound) as foreign:
        run("someone/wholly-unheard-of", "--device", "H100")
    assert "hf download someone/wholly-unheard-of config.json" in foreign.value.hint
    with pytest.raises(Invalid, match="'H101' is no device"):
        run("qwen3-8b", "--device", "H101")
    with pytest.raises(Invalid, match="'cooking' is no use"):
        run("--use", "cooking", "--device", "H100")
    with pytest.raises(Invalid, match="at most 40,960"):
        run("qwen3-8b", "--device", "H100", "--context", "50000")
    with pytest.raises(Invalid, match="choose a model, and one is given"):
        run("qwen3-8b", "--device", "H100", "--use", "code")
    with pytest.raises(Invalid, match="without MODEL"):
        run("--measure")
    with pytest.raises(Invalid, match="as it usually is, not in 'q8_0'"):
        run("smollm2-135m-instruct", "--device", "CPU=64GiB", "--kv", "q8_0", "--measure")


def test_a_folder_with_a_config_alone(tmp_path: Path) -> None:
    from noria.deployment.catalogue import catalogue

    (tmp_path / "config.json").write_text(json.dumps(dict(catalogue()["qwen3-8b"].config)))
    found = told(str(tmp_path), "--device", "H100")
    assert found["parameters"] == 8_190_735_360
    assert not any(row["exact"] for row in found["rows"])
    assert str(tmp_path) in found["rows"][1]["command"]
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Invalid, match="hidden_size"):
        run(str(tmp_path), "--device", "H100")


def test_this_machine_is_found() -> None:
    found = told("smollm2-135m", "--context", "512", "--concurrency", "1")
    assert found["device"]["memory_gib"] > 0
    assert found["device"]["bandwidth_gb_s"] > 0


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "fit.svg"
    run("qwen3-14b", "--device", "L4", "--plot", str(file))
    drawn = file.read_bytes()
    assert b"<svg" in drawn
    run("qwen3-14b", "--device", "L4", "--plot", str(file))
    assert file.read_bytes() == drawn
    with pytest.raises(Invalid, match="neither"):
        run("qwen3-14b", "--device", "L4", "--plot", str(tmp_path / "fit.pdf"))


def test_the_plan_is_within_15_percent_of_what_llama_cpp_takes() -> None:
    pytest.importorskip("xllamacpp")
    found = told("smollm2-135m-instruct", "--context", "2048", "--concurrency", "4", "--measure")["measured"]
    assert found["precision"] == "Q4_1"
    assert abs(found["off"]) < 0.15
