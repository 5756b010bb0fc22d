"""GGUF files at lower precision: what they hold, what stays as it was, what is refused."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from tiny_llama import tiny_model

from noria.backends import gguf_quantize as quantizing
from noria.backends.llamacpp import check_model
from noria.errors import Invalid, NotFound, Unavailable

PROGRAM = """#!{python}
import sys, gguf, pathlib
from noria.backends import gguf_quantize
allow, source, out, kind = sys.argv[1:]
if allow != "--allow-requantize" or kind != "Q4_K_M":
    sys.exit("unknown type")
gguf_quantize.quantize(pathlib.Path(source), pathlib.Path(out), "q5_0")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.mark.parametrize(
    ("kind", "error"),
    [("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 1e-2), ("q5_1", 5e-2), ("q5_0", 5e-2), ("q4_1", 0.1), ("q4_0", 0.1)],
)
def test_every_kind_holds_the_model(model: Path, tmp_path: Path, kind: str, error: float) -> None:
    made = quantizing.quantize(model, tmp_path / "out.gguf", kind)
    assert check_model(made.file) == kind.upper()
    assert made.fallbacks == ()
    before, after = gguf.GGUFReader(model), gguf.GGUFReader(made.file)
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (old.name, list(old.shape)) == (new.name, list(new.shape))
        then, now = gguf.dequantize(old.data, old.tensor_type), gguf.dequantize(new.data, new.tensor_type)
        assert np.abs(now - then).mean() <= error * max(1e-9, np.abs(then).mean())
    told = [
        {name: field.contents() for name, field in each.fields.items() if not name.startswith(("GGUF.", "general."))}
        for each in (before, after)
    ]
    assert told[0] == told[1]


def test_embeddings_stay_finer_and_vectors_whole(model: Path, tmp_path: Path) -> None:
    made = quantizing.quantize(model, tmp_path / "out.gguf", "q4_0")
    types = {each.name: each.tensor_type.name for each in gguf.GGUFReader(made.file).tensors}
    assert types["token_embd.weight"] == "Q8_0"
    assert types["blk.0.ffn_up.weight"] == "Q4_0"
    assert types["blk.1.attn_norm.weight"] == types["output_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("name", "shape", "kind", "type_"),
    [
        ("blk.0.ffn_up.weight", (8, 48), "q4_0", "F16"),
        ("blk.0.ffn_up.weight", (8, 64), "q5_1", "Q5_1"),
        ("output.weight", (8, 64), "q5_0", "Q8_0"),
        ("token_embd.weight", (8, 64), "bf16", "BF16"),
        ("blk.0.ffn_gate_inp.weight", (8, 64), "q8_0", "F32"),
        ("blk.0.ffn_up_exps.weight", (4, 8, 64), "q8_0", "Q8_0"),
        ("blk.0.attn_q.bias", (64,), "q8_0", "F32"),
        ("rope_freqs.weight", (32,), "f16", "F32"),
    ],
)
def test_the_rule_of_types(name: str, shape: tuple[int, ...], kind: str, type_: str) -> None:
    assert quantizing.type_name(name, shape, kind) == type_


def test_the_same_file_twice_is_the_same(model: Path, tmp_path: Path) -> None:
    files = [quantizing.quantize(model, tmp_path / f"{number}.gguf", "q8_0").file for number in (1, 2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    again = quantizing.quantize(files[0], tmp_path / "3.gguf", "q8_0").file
    assert again.read_bytes() == files[0].read_bytes()


def test_what_has_lost_already_is_known(model: Path, tmp_path: Path) -> None:
    assert quantizing.lossy(model) is None
    assert quantizing.lossy(quantizing.quantize(model, tmp_path / "a.gguf", "q8_0").file) is None
    assert quantizing.lossy(quantizing.quantize(model, tmp_path / "b.gguf", "q4_1").file) == "Q4_1"


def test_k_quants_need_a_program(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="llama-quantize") as caught:
        quantizing.quantize(model, tmp_path / "out.gguf", "q4_k_m")
    assert "--program" in caught.value.hint
    with pytest.raises(NotFound, match="is no program"):
        quantizing.quantize(model, tmp_path / "out.gguf", "q4_k_m", tmp_path / "none")


def test_a_program_is_called_and_what_fell_back_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    program = tmp_path / "llama-quantize"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(Path(quantizing.__file__).parents[2]))
    made = quantizing.quantize(model, tmp_path / "out.gguf", "q4_k_m", program)
    assert len(made.fallbacks) == 15
    with pytest.raises(Unavailable, match="unknown type"):
        quantizing.quantize(model, tmp_path / "other.gguf", "q6_k", program)
    assert not (tmp_path / "other.gguf").exists()


def test_an_unknown_kind_and_a_file_that_is_no_model_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no GGUF kind 'q9'"):
        quantizing.quantize(model, tmp_path / "out.gguf", "q9")
    (tmp_path / "text.gguf").write_text("nothing of the kind, but long enough to be read")
    with pytest.raises(Invalid, match="not a GGUF file"):
        quantizing.quantize(tmp_path / "text.gguf", tmp_path / "out.gguf", "q8_0")
