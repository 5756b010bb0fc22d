"""Candidates go to a folder, a bucket and a hub and come back; what is unsafe or was changed does not."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hub_server import Hub
from hub_server import serving as hub_serving
from made_candidates import Turns, project

from noria.apps import carrying
from noria.backends.fake import ADAPTER_FILE
from noria.backends.fake_registry import FakeRegistry
from noria.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from noria.ports import Platform
from noria.registry import candidates, versions
from noria.types import Ref


class Quiet:
    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        pass


QUIET = Quiet()


@pytest.fixture
def here(tmp_path: Path) -> tuple[Platform, Turns]:
    platform, _ = project(tmp_path / "here", "[registry]\nshare = true")
    return platform, Turns(platform)


@pytest.fixture
def there(tmp_path: Path) -> tuple[Platform, FakeRegistry]:
    return project(tmp_path / "there", "[registry]\nshare = true")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with hub_serving() as found:
        yield found


Here = tuple[Platform, Turns]
There = tuple[Platform, FakeRegistry]


def on_hub(folder: Path, hub: Hub) -> tuple[Platform, FakeRegistry]:
    return project(folder, f'[registry]\nshare = true\nhub = "{hub.url}"')


def arrives(platform: Platform, registry: FakeRegistry, source: str, was: Ref) -> None:
    told = carrying.pull(platform, "helpdesk", source, QUIET, measured=False)
    assert told["was"] == str(was)
    assert told["origin"].startswith(source)
    folder = platform.lake.verified(Ref.parse(told["adapter"]))
    assert json.loads((folder / ADAPTER_FILE).read_text())
    assert not (folder / "README.md").exists()
    version = registry.versions("helpdesk")[0]
    assert (version.candidate, version.tags["origin"]) == (told["candidate"], told["origin"])
    again = carrying.pull(platform, "helpdesk", source, QUIET, measured=False)
    assert again["candidate"] == told["candidate"]
    assert len(registry.versions("helpdesk")) == 1


def test_nothing_travels_unless_it_is_allowed(tmp_path: Path) -> None:
    platform, _ = project(tmp_path / "shop")
    Turns(platform).turn()
    for address in ("hf://acme/helpdesk", "s3://bucket/x", str(tmp_path / "out")):
        with pytest.raises(Denied, match="does not allow") as caught:
            carrying.push(platform, "helpdesk", "latest", address, probes=False)
        assert caught.value.hint == "share = true in [registry]"
        with pytest.raises(Denied):
            carrying.pull(platform, "helpdesk", address, QUIET, measured=False)
    assert not (tmp_path / "out").exists()


def test_through_a_folder_with_and_without_probes(here: Here, there: There, tmp_path: Path) -> None:
    platform, turns = here
    made = turns.turn()
    out = tmp_path / "out"
    told = carrying.push(platform, "helpdesk", "latest", str(out), probes=False)
    assert "probes.json" not in told["files"]
    assert {"README.md", "card.json", "bom.cdx.json", "noria.json"} < {file.name for file in out.iterdir()}
    arrives(*there, str(out), made.ref)
    whole = carrying.push(platform, "helpdesk", "latest", str(out), probes=True)
    assert "probes.json" in whole["files"]
    pulled = carrying.pull(there[0], "helpdesk", str(out), QUIET, measured=False)
    assert pulled["adapter"] == str(made.adapter)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(Conflict, match="holds other things"):
        carrying.push(platform, "helpdesk", "latest", str(tmp_path / "full"), probes=False)


def test_through_a_bucket(here: Here, there: There) -> None:
    platform, turns = here
    made = turns.turn()
    store = fsspec.filesystem("memory")
    try:
        carrying.push(platform, "helpdesk", "latest", "memory://models/helpdesk", probes=False)
        arrives(*there, "memory://models/helpdesk", made.ref)
        with pytest.raises(NotFound):
            carrying.pull(there[0], "helpdesk", "memory://models/nothing", QUIET, measured=False)
    finally:
        store.rm("/models", recursive=True)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_through_the_hub(here: Here, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform, _ = on_hub(tmp_path / "source", hub)
    made = Turns(platform).turn()
    with pytest.raises(Denied, match="HF_TOKEN is not set"):
        carrying.push(platform, "helpdesk", "latest", "hf://acme/helpdesk", probes=False)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(Denied, match="does not let this token"):
        carrying.push(platform, "helpdesk", "latest", "hf://acme/helpdesk", probes=False)
    assert hub.repositories == {}
    monkeypatch.setenv("HF_TOKEN", hub.token)
    told = carrying.push(platform, "helpdesk", "latest", "hf://acme/helpdesk", probes=False)
    repository = hub.repositories["acme/helpdesk"]
    assert repository.private
    sha, files = repository.files("main") or ("", {})
    assert told["to"] == f"hf://acme/helpdesk@{sha}"
    assert files["README.md"].startswith(b"---\nlicense: other\n")
    assert "probes.json" not in files
    target = on_hub(tmp_path / "target", hub)
    arrives(*target, "hf://acme/helpdesk", made.ref)
    assert carrying.pull(target[0], "helpdesk", told["to"], QUIET, measured=False)["origin"] == told["to"]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(NotFound, match="or is private"):
        carrying.pull(target[0], "helpdesk", "hf://acme/helpdesk", QUIET, measured=False)
    with pytest.raises(NotFound):
        carrying.pull(target[0], "helpdesk", "hf://acme/other", QUIET, measured=False)
    with pytest.raises(Invalid, match="is no repository"):
        carrying.pull(target[0], "helpdesk", "hf://acme", QUIET, measured=False)


def test_a_hub_that_is_away(tmp_path: Path, hub: Hub) -> None:
    platform, _ = project(tmp_path / "shop", '[registry]\nshare = true\nhub = "http://127.0.0.1:9"')
    with pytest.raises(Unavailable, match="did not do it"):
        carrying.pull(platform, "helpdesk", "hf://acme/helpdesk", QUIET, measured=False)


def test_a_strangers_adapter_comes_without_pickles(hub: Hub, tmp_path: Path) -> None:
    platform, registry = on_hub(tmp_path / "shop", hub)
    source = Turns(project(tmp_path / "source")[0])
    adapter = source.turn().adapter
    assert adapter is not None
    weights = (source.platform.lake.path(adapter) / "adapter_model.safetensors").read_bytes()
    good = {"adapter_model.safetensors": weights, "adapter_config.json": b"{}", ".gitattributes": b"x", "run.py": b"x"}
    evil = pickle.dumps({"a": 1})
    for name in ("adapter_model.bin", "training_args.pt", "sub/model.PKL"):
        hub.put(f"evil/{Path(name).stem}", {**good, name: evil})
        with pytest.raises(Invalid, match="may hold a pickle"):
            carrying.pull(platform, "helpdesk", f"hf://evil/{Path(name).stem}", QUIET, measured=False)
    assert not any("resolve" in path for path in hub.asked)
    hub.put("evil/renamed", {**good, "adapter_model.safetensors": evil})
    with pytest.raises(Invalid, match="is no safetensors file"):
        carrying.pull(platform, "helpdesk", "hf://evil/renamed", QUIET, measured=False)
    assert candidates.of(platform, "helpdesk") == []
    hub.put("good/adapter", good)
    told = carrying.pull(platform, "helpdesk", "hf://good/adapter", QUIET, measured=False)
    assert told["files"] == ["adapter_config.json", "adapter_model.safetensors"]
    assert told["was"] is None
    assert registry.versions("helpdesk")[0].tags["origin"] == told["origin"]
    hub.broken["adapter_model.safetensors"] = weights[:-1] + b"\x07"
    with pytest.raises(Invalid, match="SHA-256"):
        carrying.pull(platform, "helpdesk", "hf://good/adapter", QUIET, measured=False)


def test_what_was_changed_on_its_way_is_refused(here: Here, there: There, tmp_path: Path) -> None:
    platform, turns = here
    turns.turn()
    out = tmp_path / "out"
    carrying.push(platform, "helpdesk", "latest", str(out), probes=False)

    def refused(match: str) -> None:
        with pytest.raises(Invalid, match=match):
            carrying.pull(there[0], "helpdesk", str(out), QUIET, measured=False)
        assert candidates.of(there[0], "helpdesk") == []

    table = (out / ADAPTER_FILE).read_text()
    (out / ADAPTER_FILE).write_text(table.replace("Answer", "Anzwer"))
    refused(f"'{ADAPTER_FILE}' is not the file that was pushed")
    (out / ADAPTER_FILE).unlink()
    refused(f"'{ADAPTER_FILE}' is missing")
    (out / ADAPTER_FILE).write_text(table)
    manifest = json.loads((out / "noria.json").read_text())
    for change, match in (
        ({"files": {**manifest["files"], "../../evil.json": "0" * 64}}, "outside of its folder"),
        ({"files": {**manifest["files"], "weights.bin": "0" * 64}}, "may hold a pickle"),
        ({"candidate": {**manifest["candidate"], "base": {"kind": "base", "name": "x", "digest": "1" * 16}}},
         "was made for 'base:x@1111111111111111'"),
        ({"format": 9}, "of format 9"),
        ({"more": 1}, "is no manifest"),
    ):  # fmt: skip
        (out / "noria.json").write_text(json.dumps({**manifest, **change}))
        (out / "weights.bin").write_bytes(b"x")
        (tmp_path / "evil.json").write_text("{}")
        refused(match)


def test_what_learned_from_the_forgotten_stays_here(here: Here, tmp_path: Path) -> None:
    platform, turns = here
    made = turns.turn()
    assert made.adapter is not None
    (platform.lake.path(made.adapter) / "forgotten.json").write_text('[{"at": "2026-02-03", "rows": 0}]')
    with pytest.raises(Conflict, match="were to be forgotten"):
        carrying.push(platform, "helpdesk", "latest", str(tmp_path / "out"), probes=False)


def test_a_pulled_candidate_is_one_of_the_task(here: Here, there: There, tmp_path: Path) -> None:
    platform, turns = here
    turns.turn()
    carrying.push(platform, "helpdesk", "latest", str(tmp_path / "out"), probes=False)
    told = carrying.pull(there[0], "helpdesk", str(tmp_path / "out"), QUIET, measured=False)
    each = candidates.find(there[0], "helpdesk", "latest")
    assert each.ref == told["candidate"]
    card = candidates.carded(there[0], each.ref)
    assert card is not None
    text = (there[0].lake.path(card.ref) / "README.md").read_text()
    assert "It was brought in from" in text
    assert "It has not been measured here." in text
    versions.sync(there[0], "helpdesk")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_through_a_bucket_by_its_protocol(tmp_path: Path, s3: str) -> None:
    fsspec.filesystem("s3", endpoint_url=s3).mkdir("models")
    table = f'[registry]\nshare = true\nstorage = {{ endpoint_url = "{s3}" }}'
    platform, _ = project(tmp_path / "here", table)
    made = Turns(platform).turn()
    for _ in range(2):
        told = carrying.push(platform, "helpdesk", "latest", "s3://models/helpdesk/", probes=False)
    assert told["to"] == "s3://models/helpdesk"
    target = project(tmp_path / "there", table)
    arrives(*target, "s3://models/helpdesk", made.ref)
    with pytest.raises((NotFound, Unavailable)):
        carrying.pull(target[0], "helpdesk", "s3://none-such/x", QUIET, measured=False)
