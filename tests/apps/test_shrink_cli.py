"""`noria quantize`, `noria prune` and `noria export model`, on a tiny model in the real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import tiny_model
from typer.testing import CliRunner

from noria import adapters
from noria.apps.cli import app
from noria.backends import gguf_quantize
from noria.errors import Conflict, Invalid, NoriaError, NotFound
from noria.registry import candidates
from noria.settings import load
from noria.types import Ref
from noria.wiring import open_platform

TOML = """
[project]
name = "shop"

[engines.local]
kind = "llamacpp"
model = "tiny.gguf"
slots = 1
context = 512
threads = 1

[[sources]]
name = "faq"
kind = "text"
path = "*.txt"

[tasks.helpdesk]
kind = "chat"
sources = ["faq"]
base = "tiny.gguf"
engine = "local"
system = "Be kind."
gate = { metric = "token_f1", margin = 0.02, risk = 0.05 }
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    tiny_model(folder / "tiny.gguf")
    (folder / "noria.toml").write_text(TOML)
    rows = [{"question": f"What is {number}?", "answer": f"It is {number}."} for number in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(project)

    def ran(*words: str) -> Any:
        done = CliRunner().invoke(app, [*words, "--json"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return ran


@pytest.mark.parametrize("words", [["quantize"], ["prune"], ["export", "model"]])
def test_every_command_has_an_example(words: list[str]) -> None:
    assert f"Example: noria {' '.join(words)}" in CliRunner().invoke(app, [*words, "--help"]).output


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["--to", "q9"], Invalid, "no kind 'q9'"),
        (["--to", "awq"], Invalid, "CUDA device"),
        (["--to", "gptq"], Invalid, "CUDA device"),
        (["--to", "q4_k_m", "--program", "nowhere"], NotFound, "no program"),
        (["--to", "q8_0", "--rows", "none.jsonl"], NotFound, "none.jsonl"),
        (["--to", "bnb-nf4", "--task", "helpdesk"], Invalid, "no candidate of task"),
        (["--to", "q8_0", "--engine", "other"], Invalid, "no engine 'other'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    run: Callable[..., Any], words: list[str], error: type[NoriaError], said: str
) -> None:
    with pytest.raises(error, match=said):
        run("quantize", "tiny.gguf", "--out", "refused", *words)
    assert not Path("refused").exists()


def test_a_source_that_has_lost_already_is_refused(run: Callable[..., Any], project: Path) -> None:
    gguf_quantize.quantize(project / "tiny.gguf", project / "small.gguf", "q4_1")
    with pytest.raises(Invalid, match="are Q4_1 already") as caught:
        run("quantize", "small.gguf", "--to", "q8_0", "--out", "refused")
    assert "--requantize" in caught.value.hint


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_kinds_are_made_measured_and_registered(run: Callable[..., Any], project: Path) -> None:
    told = run("quantize", "tiny.gguf", "--to", "q8_0,q4_0", "--out", "q", "--rows", "rows.jsonl", "--task", "helpdesk")
    source, fine, coarse = told["table"]
    assert [each["precision"] for each in told["table"]] == ["f32", "q8_0", "q4_0"]
    assert (source["agreement"], source["kl"]) == (1.0, 0.0)
    assert 0 < fine["kl"] < coarse["kl"]
    assert fine["agreement"] >= coarse["agreement"]
    assert fine["size_mb"] > coarse["size_mb"]
    assert all(each["tokens_per_s"] > 0 and each["garbage"]["answers"] == 4 for each in told["table"])
    assert json.loads((project / "q" / "shrink.json").read_text()) == told
    platform = open_platform(load(project / "noria.toml"))
    for each in told["candidates"]:
        found = candidates.find(platform, "helpdesk", each["candidate"])
        assert found.candidate.quantization == each["kind"].upper()
        ref = Ref.parse(each["adapter"])
        assert adapters.kind_of(platform.lake.verified(ref)) == "model"
        made = platform.runs.artifact(ref)
        assert made is not None
        assert [parent.kind for parent in made.parents] == ["base"]
        assert made.meta["shrunk"] == {"by": "quantize", "kind": each["kind"], "from": "tiny"}
    with pytest.raises(Conflict, match="is there already"):
        run("quantize", "tiny.gguf", "--to", "q8_0", "--out", "q", "--rows", "rows.jsonl")


@pytest.mark.slow
@pytest.mark.long
def test_pruning_is_told_before_and_after(run: Callable[..., Any], project: Path) -> None:
    told = run("prune", "tiny.gguf", "--pattern", "2:4", "--kind", "f32", "--out", "p", "--rows", "rows.jsonl")
    before, after = told["table"]
    assert after["sparsity"] == 0.5
    assert after["kl"] > before["kl"] == 0
    assert (project / "p" / after["folder"] / "config.json").is_file()
    assert str(project) not in (project / "p" / after["folder"] / "config.json").read_text()
    assert str(project).encode() not in (project / "p" / after["file"]).read_bytes()


@pytest.mark.slow
@pytest.mark.long
def test_a_folder_is_quantized_by_bitsandbytes(run: Callable[..., Any], project: Path) -> None:
    told = run("quantize", "tiny.gguf", "--to", "bnb-nf4", "--out", "b", "--rows", "rows.jsonl")
    after = told["table"][1]
    assert (after["engine"], after["maps"]) == ("transformers", 14)
    assert after["kl"] > 0
    for file in (project / "b" / after["file"]).iterdir():
        assert str(project).encode() not in file.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient:FutureWarning")
def test_a_merged_adapter_is_base_and_lora(run: Callable[..., Any], project: Path) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    from noria.backends import gguf_adapter, gguf_weights, shrink_model
    from noria.backends.peft_model import prepare

    prepare(3, "cpu")
    platform = open_platform(load(project / "noria.toml"))
    folder = platform.lake.scratch("lora")
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"], init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    get_peft_model(gguf_weights.load(project / "tiny.gguf"), config).save_pretrained(folder)
    (folder / "README.md").unlink()
    gguf_adapter.convert(folder, folder / "adapter.gguf", heads=4, kv_heads=2)
    ref = platform.lake.commit(folder, "adapter", "helpdesk")
    tuned = PeftModel.from_pretrained(gguf_weights.load(project / "tiny.gguf"), platform.lake.path(ref))
    told = run("export", "model", str(ref), "--to", "folder", "--out", "merged")
    run("export", "model", str(ref), "--to", "gguf", "--quantize", "f32", "--out", "merged.gguf")
    ids = torch.tensor([[257, *range(30, 60)]])
    with torch.inference_mode():
        wanted = tuned(ids).logits
        plain = gguf_weights.load(project / "tiny.gguf")(ids).logits
        for place in ("merged", "merged.gguf"):
            assert torch.allclose(shrink_model.opened(project / place)(ids).logits, wanted, atol=1e-4)
    assert not torch.allclose(plain, wanted, atol=1e-2)
    assert told["parents"][0] == str(ref)
    assert (project / "merged" / "chat_template.jinja").is_file()
    for file in (*(project / "merged").iterdir(), project / "merged.gguf"):
        assert str(project).encode() not in file.read_bytes()


def test_an_adapter_outside_of_a_project_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["quantize", "adapter:helpdesk@0123456789abcdef"])
    assert isinstance(done.exception, NotFound | Invalid)
    assert "noria.toml" in done.exception.fact + done.exception.hint
