"""The trainer on a tiny model of the llama architecture, in its real child process, against the real engine."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from tiny_llama import ANSWER, LAYERS, PROMPT, Heard, digests, tiny_model, write_features

from noria.backends import gguf_weights, llamacpp
from noria.backends.chat_tokenizer import ChatTokenizer
from noria.backends.llamacpp import LlamaCpp
from noria.backends.peft_job import read_rows
from noria.backends.peft_trainer import PeftTrainer
from noria.errors import Invalid, Unavailable
from noria.settings import EngineSettings, LoraRecipe
from noria.types import Message, Ref, TrainingJob


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> PeftTrainer:
    return PeftTrainer(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), [PROMPT + ANSWER] * 4)


def learning(model: Path, features: Path, out: Path, start: Path | None = None, rank: int = 8) -> TrainingJob:
    recipe = LoraRecipe(rank=rank, learning_rate=1e-2)
    return TrainingJob(model=model, features=features, plan=[[0, 1], [2, 3]] * 20, start=start, recipe=recipe, out=out)


@pytest.fixture(scope="module")
def trained(
    trainer: PeftTrainer, model: Path, features: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, object], Heard]:
    out, heard = tmp_path_factory.mktemp("trained") / "out", Heard()
    return out, dict(trainer.train(learning(model, features, out), heard)), heard


@pytest.mark.parametrize("plan", [[[0], [4]], [[-1]], [[0], []]])
def test_a_plan_that_does_not_fit_the_features_is_refused(features: Path, plan: list[list[int]]) -> None:
    with pytest.raises(Invalid, match="4 rows"):
        read_rows(features / "features.parquet", plan)


def test_a_row_without_anything_to_learn_is_refused(tmp_path: Path) -> None:
    table = pa.table({"input_ids": [[1, 2, 3]], "loss_mask": [[1, 0, 0]]})
    pq.write_table(table, tmp_path / "features.parquet")
    with pytest.raises(Invalid, match="nothing to learn"):
        read_rows(tmp_path / "features.parquet", [[0]])


def test_models_that_cannot_be_trained_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(Invalid, match="'qwen2'"):
        gguf_weights.unpack(tiny_model(tmp_path / "qwen.gguf", architecture="qwen2"), cache)
    (tmp_path / "text.gguf").write_text("this is not a model, whatever its name says")
    with pytest.raises(Invalid, match=r"'text\.gguf' is not a GGUF file"):
        gguf_weights.unpack(tmp_path / "text.gguf", cache)
    with pytest.raises(Invalid, match=r"'none\.gguf'"):
        gguf_weights.unpack(tmp_path / "none.gguf", cache)
    assert not list(cache.iterdir())


@pytest.mark.slow
def test_a_missing_package_is_named(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gguf.py").write_text("raise ModuleNotFoundError(\"No module named 'gguf'\", name='gguf')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Unavailable, match="'gguf' is not installed") as caught:
        PeftTrainer(tmp_path / "cache").tokenizer(model)
    assert caught.value.hint == "pip install 'noria[train]'"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"), [({"extra": "blk.0.attn_q.bias"}, "attn_q.bias"), ({"split": "deepseek-llm"}, "deepseek-llm")]
)
def test_what_training_would_silently_get_wrong_is_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    model = tiny_model(tmp_path / "odd.gguf", **change)
    with pytest.raises(Invalid, match=named):
        PeftTrainer(tmp_path / "cache").tokenizer(model)


@pytest.mark.slow
def test_training_learns_and_says_how_it_goes(trained: tuple[Path, dict[str, object], Heard]) -> None:
    out, measured, heard = trained
    assert set(digests(out)) == {
        "adapter.gguf",
        "adapter_config.json",
        "adapter_model.safetensors",
        "loss.json",
        "loss.png",
        "probes.json",
    }
    losses = json.loads((out / "loss.json").read_text())
    assert losses["steps"] == list(range(1, 41))
    assert measured["losses"] == losses["loss"]
    assert measured["last_loss"] < 0.5 * measured["first_loss"]  # type: ignore[operator]
    assert (measured["steps"], measured["tokens"]) == (40, 40 * 2 * (PROMPT + ANSWER))
    assert [update[:3] for update in heard.updates] == [("training", done, 40) for done in range(41)]
    assert f"loss {losses['loss'][-1]:.3f}" in heard.updates[-1][3]
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_same_job_gives_the_same_bytes_in_another_folder(
    trainer: PeftTrainer,
    model: Path,
    features: Path,
    trained: tuple[Path, dict[str, object], Heard],
    tmp_path: Path,
) -> None:
    copy = tmp_path / "elsewhere.gguf"
    copy.write_bytes(model.read_bytes())
    trainer.train(learning(copy, features, tmp_path / "again"), Heard())
    assert digests(tmp_path / "again") == digests(trained[0])
    for path in trained[0].iterdir():
        assert str(model.parent).encode() not in path.read_bytes()


@pytest.mark.slow
def test_the_loss_of_a_step_is_the_mean_over_its_learned_tokens(
    trainer: PeftTrainer, model: Path, tmp_path: Path
) -> None:
    lengths = [PROMPT + ANSWER, 150, 200, 90]
    folder = write_features(tmp_path / "features", lengths)
    table = pq.read_table(folder / "features.parquet").to_pylist()
    table[1]["loss_mask"] = [0] * 100 + [1] * 50
    types = [("id", pa.string()), ("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.int8()))]
    pq.write_table(pa.Table.from_pylist(table, schema=pa.schema(types)), folder / "features.parquet")
    job = TrainingJob(
        model=model,
        features=folder,
        plan=[[2], [0], [1], [3], [0, 1, 2, 3]],
        start=None,
        recipe=LoraRecipe(rank=2, learning_rate=1e-12),
        out=tmp_path / "out",
    )
    trainer.train(job, Heard())
    third, first, second, fourth, together = json.loads((tmp_path / "out" / "loss.json").read_text())["loss"]
    learned = [ANSWER, 50, ANSWER, ANSWER]
    apart = zip([first, second, third, fourth], learned, strict=True)
    assert together == pytest.approx(sum(loss * count for loss, count in apart) / sum(learned), abs=1e-4)
    assert len({first, second, third, fourth}) == 4


@pytest.mark.slow
def test_training_goes_on_from_an_adapter(
    trainer: PeftTrainer,
    model: Path,
    features: Path,
    trained: tuple[Path, dict[str, object], Heard],
    tmp_path: Path,
) -> None:
    measured = trainer.train(learning(model, features, tmp_path / "next", start=trained[0]), Heard())
    assert float(str(measured["first_loss"])) < 0.6 * float(str(trained[1]["first_loss"]))
    with pytest.raises(Invalid, match="rank 8, alpha 32, 2 layers and 7 modules; the recipe wants 4, 32, 2 and 7"):
        trainer.train(learning(model, features, tmp_path / "other", start=trained[0], rank=4), Heard())


class Meddler(Heard):
    """A `Progress` at whose second step the worker is killed, or the person presses Ctrl-C."""

    def __init__(self, interrupt: bool) -> None:
        super().__init__()
        self.interrupt = interrupt
        self.worker: psutil.Process | None = None

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        if done == 2:
            [self.worker] = [
                child for child in psutil.Process().children() if "noria.backends.peft_worker" in child.cmdline()
            ]
            if self.interrupt:
                raise KeyboardInterrupt
            self.worker.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("interrupt", "raised"), [(False, Unavailable), (True, KeyboardInterrupt)])
def test_a_worker_that_is_killed_or_not_wanted_any_more_ends(
    trainer: PeftTrainer, model: Path, features: Path, tmp_path: Path, interrupt: bool, raised: type[BaseException]
) -> None:
    meddler = Meddler(interrupt)
    with pytest.raises(raised):
        trainer.train(learning(model, features, tmp_path / "out"), meddler)
    assert meddler.worker is not None
    assert not meddler.worker.is_running()


@pytest.mark.slow
def test_the_engine_serves_what_was_trained(
    model: Path, trained: tuple[Path, dict[str, object], Heard], tmp_path: Path
) -> None:
    probes = json.loads((trained[0] / "probes.json").read_text())
    assert len(probes) == 40
    assert {len(probe["prefix"]) for probe in probes} <= set(range(PROMPT, PROMPT + ANSWER))
    adapter = Ref(kind="adapter", name="tiny", digest="0" * 16)
    settings = EngineSettings(kind="llamacpp", model=str(model), slots=1, context=256, threads=1)
    engine = LlamaCpp().start(settings, {adapter: trained[0]}, tmp_path / "log")
    try:
        for probe in probes:
            token, logprob = engine.next_token(probe["prefix"], adapter)
            assert token == probe["token"]
            assert logprob == pytest.approx(probe["logprob"], abs=0.05)
        for probe in probes[:20]:
            token, logprob = engine.next_token(probe["prefix"], None)
            assert token == probe["base_token"]
            assert logprob == pytest.approx(probe["base_logprob"], abs=0.05)
    finally:
        engine.close()
    assert any(probe["token"] != probe["base_token"] for probe in probes[:20])


@pytest.mark.slow
def test_text_becomes_the_same_tokens_in_training_and_in_the_engine(tmp_path: Path) -> None:
    settings = EngineSettings(kind="llamacpp", model="smollm2-135m-instruct", slots=1, context=256, threads=1)
    folder = PeftTrainer(tmp_path / "cache").tokenizer(llamacpp.model_path(settings))
    tokenizer = ChatTokenizer(folder)
    engine = LlamaCpp().start(settings, {}, tmp_path / "log")
    texts = (
        "Order 12345 costs 9.99, or 100,000 in 2024.",
        "wait 37 seconds  for\n\n 8 minutes\tand 3.5 hours",
        "Şehir 漢字 🙂 e\u0301 ½ ٣ 'LL don't",
        "[Answer] #### <b> --flag",
    )
    try:
        for text in texts:
            body = {"content": f"<|im_start|>user\n{text}<|im_end|>\n", "add_special": False, "parse_special": True}
            request = urllib.request.Request(
                engine.endpoint.url.removesuffix("/v1") + "/tokenize",
                json.dumps(body).encode(),
                {"content-type": "application/json", "authorization": f"Bearer {engine.endpoint.key}"},
            )
            with urllib.request.urlopen(request) as answer:
                served = json.load(answer)["tokens"]
            system, assistant = Message(role="system", content="s"), "<|im_start|>assistant\n"
            head = tokenizer.prompt([system])[: -len(tokenizer.answer(assistant)) + 1]
            learned = tokenizer.prompt([system, Message(role="user", content=text)])
            assert learned[len(head) : len(head) + len(served)] == served
    finally:
        engine.close()


@pytest.mark.slow
@pytest.mark.long
def test_the_frozen_layers_below_an_adapter_change_nothing_but_the_time(
    trainer: PeftTrainer, model: Path, features: Path, tmp_path: Path
) -> None:
    whole = learning(model, features, tmp_path / "whole")
    upper = replace(whole, recipe=whole.recipe.model_copy(update={"layers": 1}), out=tmp_path / "upper")
    of_whole, of_upper = trainer.train(whole, Heard()), trainer.train(upper, Heard())
    # An adapter begins without effect, so the first loss is the base's, whichever layers are trained.
    assert of_upper["first_loss"] == pytest.approx(of_whole["first_loss"], abs=1e-4)
    assert float(str(of_upper["last_loss"])) < float(str(of_upper["first_loss"]))
    names = load_file(tmp_path / "upper" / "adapter_model.safetensors")
    assert {name.split("layers.")[1].split(".")[0] for name in names} == {str(LAYERS - 1)}
