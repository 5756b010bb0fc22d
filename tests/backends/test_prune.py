"""Pruning: which weights go, how many, and that what is written has just these zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tiny_llama import LAYERS, tiny_model

from noria.backends import gguf_weights, prune, shrink_model
from noria.backends.shrink_job import PruneJob
from noria.errors import Invalid

pytestmark = pytest.mark.slow
ROWS = [[257, *range(20, 52)], [257, *range(90, 60, -1)]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


def pruned(model: Path, rows: list[list[int]] = ROWS, **how: Any) -> tuple[Any, dict[str, Any]]:
    causal = gguf_weights.load(model)
    job = PruneJob(model=model, rows=(), out=model.parent, file=model, **how)
    return causal, dict(prune.carry_out(causal, job, rows, lambda done, total: None))


def matrices(causal: Any) -> list[Any]:
    return [linear.weight.detach().numpy() for layer in causal.model.layers for _, linear in prune.maps(layer)]


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.8])
def test_so_many_weights_go_of_each_row_as_are_asked_for(model: Path, sparsity: float) -> None:
    causal, told = pruned(model, method="wanda", sparsity=sparsity)
    assert told["sparsity"] == pytest.approx(sparsity, abs=0.02)
    for weight in matrices(causal):
        assert {*(weight == 0).sum(1)} == {int(weight.shape[1] * sparsity)}


def test_magnitude_takes_the_smallest_of_each_matrix(model: Path) -> None:
    before, (after, _) = matrices(gguf_weights.load(model)), pruned(model, method="magnitude")
    for old, new in zip(before, matrices(after), strict=True):
        assert np.abs(old[new == 0]).max() <= np.abs(old[new != 0]).min()
        assert np.array_equal(old[new != 0], new[new != 0])


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_two_of_four_neighbours_go(model: Path, method: str) -> None:
    causal, told = pruned(model, method=method, pattern="2:4")
    assert told["sparsity"] == 0.5
    for weight in matrices(causal):
        assert {*(weight.reshape(-1, 4) == 0).sum(1)} == {2}


def test_wanda_weighs_by_what_comes_in(model: Path) -> None:
    """The first map of the first layer, computed by hand from its inputs."""
    import torch

    plain = gguf_weights.load(model)
    layer = plain.model.layers[0]
    with torch.inference_mode():
        given = torch.cat([layer.input_layernorm(plain.model.embed_tokens(torch.tensor(row))) for row in ROWS])
    weight = layer.self_attn.q_proj.weight.detach()
    worth = (weight.abs() * given.norm(dim=0)).numpy()
    after = pruned(model, method="wanda")[0].model.layers[0].self_attn.q_proj.weight.detach().numpy()
    for row, kept in zip(worth, after != 0, strict=True):
        assert row[~kept].max() <= row[kept].min()


def test_the_layers_that_change_least_go(tmp_path: Path) -> None:
    import torch

    file = tiny_model(tmp_path / "deep.gguf", layers=5)
    causal = gguf_weights.load(file)
    with torch.no_grad():
        for number in (1, 3):
            causal.model.layers[number].self_attn.o_proj.weight.mul_(0.01)
            causal.model.layers[number].mlp.down_proj.weight.mul_(0.01)
    job = PruneJob(model=file, method="layers", drop=2, rows=(), out=tmp_path, file=file)
    told = prune.carry_out(causal, job, ROWS, lambda done, total: None)
    assert told["dropped"] == [1, 3]
    shrink_model.write(causal, file, tmp_path / "folder", tmp_path / "less.gguf", "f32")
    less = gguf_weights.load(tmp_path / "less.gguf")
    ids = torch.tensor(ROWS[:1])
    assert less.config.num_hidden_layers == 3
    for other in (less, shrink_model.opened(tmp_path / "folder")):
        assert torch.equal(other(ids).logits, causal(ids, use_cache=False).logits)


def test_layers_at_the_ends_stay(model: Path) -> None:
    with pytest.raises(Invalid, match="cannot be dropped"):
        pruned(model, method="layers", drop=1)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"method": "wanda", "sparsity": 1.0}, "not between 0 and 1"),
        ({"method": "magnitude", "sparsity": 0.0}, "not between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_refused(model: Path, how: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        pruned(model, **how)


def test_wanda_without_rows_is_refused(model: Path) -> None:
    with pytest.raises(Invalid, match="rows to calibrate"):
        pruned(model, rows=[], method="wanda")


def test_both_files_have_the_zeros(model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    causal, _ = pruned(model, method="wanda", pattern="2:4")
    shrink_model.write(causal, model, tmp_path / "folder", tmp_path / "model.gguf", "q8_0")
    folder = load_file(tmp_path / "folder" / "model.safetensors")
    up = folder["model.layers.1.mlp.up_proj.weight"]
    tensors = {each.name: each for each in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    inside = tensors["blk.1.ffn_up.weight"]
    assert {*(up.reshape(-1, 4) == 0).sum(1)} == {2}
    assert ((gguf.dequantize(inside.data, inside.tensor_type) == 0) >= (up == 0)).all()
    assert shrink_model.opened(tmp_path / "folder").config.num_hidden_layers == LAYERS
