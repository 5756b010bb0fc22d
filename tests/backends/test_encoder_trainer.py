"""Heads trained by the child process and served by the engine."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_encoder import WIDTH, tiny_encoder

from noria import adapters
from noria.backends import encoder
from noria.backends.encoder_model import TUNED, Encoder, Head
from noria.backends.encoder_trainer import EncoderTrainer
from noria.errors import Invalid
from noria.evaluation import parity
from noria.features.encode import SCHEMA
from noria.settings import EncoderRecipe, EngineSettings
from noria.types import HeadJob, Ref

pytestmark = pytest.mark.slow

ADAPTER = Ref(kind="adapter", name="help", digest="a" * 16)


class Quiet:
    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        pass


def features(folder: Path, model: Path, *, several: bool = False, rows: int = 40) -> Path:
    """Texts about the river or the aid, confirmed or not."""
    folder.mkdir()
    known = Encoder.load(model, 128)
    random = np.random.default_rng(1)
    made = []
    for number in range(rows):
        topic, sure = ("aid", "danube")[number % 2], ("not", "is")[(number // 2) % 2]
        filler = " ".join(str(each) for each in random.choice(["a", "b", "c", "d", "word"], 3))
        text = f"the {topic} {sure} {filler}"
        ids = known.tokens(text)
        target = (f"{topic}; {sure}" if sure == "is" else topic) if several else topic
        made.append({
            "id": f"{number:03}", "origin": "source:x", "slice": "task", "group": f"g{number // 2}", "text": text,
            "input_ids": ids, "attention_mask": [1] * len(ids), "tokens": len(ids), "target": target,
        })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(made, schema=SCHEMA), folder / "features.parquet")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {each.name: sha256(each.read_bytes()).hexdigest() for each in sorted(folder.iterdir())}


@pytest.mark.parametrize("several", [False, True])
def test_a_head_is_the_same_twice_and_the_engine_serves_what_was_trained(tmp_path: Path, several: bool) -> None:
    model = tiny_encoder(tmp_path / "tiny")
    made = features(tmp_path / "features", model, several=several)
    results = []
    for name in ("first", "second"):
        job = HeadJob(model, made, EncoderRecipe(max_length=128), several, tmp_path / name)
        results.append(EncoderTrainer().train(job, Quiet()))
        adapters.mark(job.out, "head")
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    assert results[0]["labels"] == ({"aid": 20, "danube": 20, "is": 20} if several else {"aid": 20, "danube": 20})
    assert float(str(results[0]["last_loss"])) < float(str(results[0]["first_loss"]))
    assert float(str(results[0]["validation_accuracy"])) > 0.8
    settings = EngineSettings(kind="encoder", model=str(model), context=128)
    engine = encoder.open().start(settings, {ADAPTER: tmp_path / "first"}, tmp_path / "log")
    try:
        assert parity.check(engine, ADAPTER, tmp_path / "first", Quiet()) == {"parity": 1.0, "changed": 1.0}
        body = {**engine.extra(ADAPTER), "input": ["the aid is a", "the danube not b"]}
        headers = {"authorization": f"Bearer {engine.endpoint.key}"}
        said = httpx.post(f"{engine.endpoint.url}/classify", json=body, headers=headers).json()["data"]
        assert [each["label"].split(";")[0] for each in said] == ["aid", "danube"]
        assert [each["num_classes"] for each in said] == [3 if several else 2] * 2
    finally:
        engine.close()


def test_rows_of_one_class_are_refused(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "tiny")
    made = features(tmp_path / "features", model, rows=1)
    with pytest.raises(Invalid, match="of one class: 'aid'"):
        EncoderTrainer().train(HeadJob(model, made, EncoderRecipe(), False, tmp_path / "out"), Quiet())
    assert not (tmp_path / "out").exists()


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "tiny")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(Invalid, match=r"no 'model\.safetensors'"):
        encoder.open().base(EngineSettings(kind="encoder", model=str(model)))


def test_a_head_of_another_encoder_is_refused(tmp_path: Path) -> None:
    Head(np.zeros((2, WIDTH + 1), np.float32), np.zeros(2, np.float32), ("a", "b"), several=False).save(tmp_path)
    adapters.mark(tmp_path, "head")
    settings = EngineSettings(kind="encoder", model=str(tiny_encoder(tmp_path / "tiny")))
    with pytest.raises(Invalid, match="another encoder"):
        encoder.open().start(settings, {ADAPTER: tmp_path}, tmp_path / "log")


def test_documents_are_ranked_by_a_cross_encoder_where_one_is_given_and_else_by_likeness(tmp_path: Path) -> None:
    model, cross = tiny_encoder(tmp_path / "tiny"), tiny_encoder(tmp_path / "cross", outputs=1)
    ways = {}
    for reranker in (None, str(cross)):
        settings = EngineSettings(kind="encoder", model=str(model), context=128, reranker=reranker)
        engine = encoder.open().start(settings, {}, tmp_path / "log")
        try:
            body = {"query": "the danube", "documents": ["aid is not", "the danube", "word"], "top_n": 2}
            headers = {"authorization": f"Bearer {engine.endpoint.key}"}
            said = httpx.post(f"{engine.endpoint.url}/rerank", json=body, headers=headers).json()
        finally:
            engine.close()
        ways[said["scored_by"]] = said["results"]
        assert len(said["results"]) == 2
    assert list(ways) == ["embedding similarity", "cross-encoder"]
    assert ways["embedding similarity"][0]["index"] == 1
    assert ways["embedding similarity"][0]["relevance_score"] == pytest.approx(1.0, abs=1e-5)


def test_the_vectors_are_those_of_the_reference(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification

    from noria.backends.encoder_model import CrossEncoder, encoder_folder

    for folder in (encoder_folder("all-minilm-l6-v2"), tiny_encoder(tmp_path / "tiny")):
        mine = Encoder.load(folder, 256)
        reference = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
        texts = [mine.tokens(text) for text in ("The aid is confirmed.", "Which river flows through Vienna?", "no")]
        with torch.inference_mode():
            states = [reference(torch.tensor([text])).last_hidden_state[0].mean(dim=0) for text in texts]
        wanted = torch.nn.functional.normalize(torch.stack(states), dim=-1).numpy()
        assert np.allclose(mine.embed(texts), wanted, atol=2e-5)
    cross = tiny_encoder(tmp_path / "cross", outputs=1)
    pair = CrossEncoder.load(cross, 128).tokenizer.encode("the danube", "flows through vienna")
    both = AutoModelForSequenceClassification.from_pretrained(cross).eval()
    with torch.inference_mode():
        logit = both(torch.tensor([pair.ids]), token_type_ids=torch.tensor([pair.type_ids])).logits[0, 0]
    score = CrossEncoder.load(cross, 128).scores("the danube", ["flows through vienna"])[0]
    assert score == pytest.approx(float(torch.sigmoid(logit)), abs=1e-5)


@pytest.mark.long
def test_tuned_layers_are_served_as_they_were_trained(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "tiny")
    made = features(tmp_path / "features", model, several=False)
    recipe = EncoderRecipe(max_length=128, layers=1, epochs=4, learning_rate=1e-3)
    for name in ("first", "second"):
        result = EncoderTrainer().train(HeadJob(model, made, recipe, False, tmp_path / name), Quiet())
        adapters.mark(tmp_path / name, "head")
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    assert (tmp_path / "first" / TUNED).is_file() == bool(result["epochs"])
    settings = EngineSettings(kind="encoder", model=str(model), context=128)
    engine = encoder.open().start(settings, {ADAPTER: tmp_path / "first"}, tmp_path / "log")
    try:
        assert parity.check(engine, ADAPTER, tmp_path / "first", Quiet())["parity"] == 1.0
    finally:
        engine.close()
    assert json.loads((tmp_path / "first" / "loss.json").read_text())["steps"] > 0
