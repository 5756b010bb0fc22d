"""Pickles are refused whatever they are called; weights are what their names say."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from noria import formats
from noria.errors import Invalid

GOOD = [
    "adapter_model.safetensors",
    "adapter.gguf",
    "a/b/config.json",
    "tokenizer.model",
    "README.md",
    ".gitattributes",
]


def test_what_belongs_to_an_adapter_may_come() -> None:
    formats.check_names(GOOD)


@pytest.mark.parametrize(
    "name", ["model.bin", "m.PT", "x/m.pth", "m.pkl", "m.pickle", "m.ckpt", "m.joblib", "m.npy", "run.py", "lib.so",
             "/etc/x.json", "../x.json", "a/../../x.json", "a\\..\\x.json", "noext", ""],
)  # fmt: skip
def test_what_may_run_code_or_leads_out_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        formats.check_names([*GOOD, name])
    assert f"'{name}'" in caught.value.fact


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("never"),))


@pytest.mark.parametrize("name", ["w.safetensors", "w.gguf", "w.json", "tokenizer.model"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_renamed_pickle_is_refused(tmp_path: Path, name: str, protocol: int) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Evil(), protocol))
    with pytest.raises(Invalid, match=f"'{name}'"):
        formats.check_folder(tmp_path)


def test_an_archive_as_torch_writes_it_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tokenizer.model", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({}))
    with pytest.raises(Invalid, match="a pickle or an archive"):
        formats.check_folder(tmp_path)


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to("/etc/hostname")
    with pytest.raises(Invalid, match="is a link"):
        formats.check_folder(tmp_path)


@given(cut=st.integers(0, 200), more=st.binary(max_size=4))
def test_safetensors_are_whole(tmp_path_factory: pytest.TempPathFactory, cut: int, more: bytes) -> None:
    folder = tmp_path_factory.mktemp("weights")
    file = folder / "w.safetensors"
    save_file({"a": np.ones((3, 2), np.float32), "b": np.zeros(0, np.float32)}, file)
    formats.check_folder(folder)
    whole = file.read_bytes()
    changed = whole[: min(cut, len(whole))] + more
    file.write_bytes(changed)
    if len(changed) != len(whole):  # Other numbers in a file of the right length are a file too.
        with pytest.raises(Invalid):
            formats.check_folder(folder)


def test_only_what_is_known_of_a_stranger_is_chosen() -> None:
    assert formats.chosen(["run.py", "b.gguf", ".gitignore", "a.json"]) == ["a.json", "b.gguf"]
    with pytest.raises(Invalid, match="may hold a pickle"):
        formats.chosen(["a.safetensors", "optimizer.pt"])


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_a_gguf_without_harm(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("gguf") / "x.gguf"
    file.write_bytes(b"GGUF" + data)
    assert formats.gguf_text(file, "general.license") in (None, "")
    assert formats.gguf_text(file.with_name("missing.gguf"), "x") is None
