"""What a card tells, and a bill of materials that CycloneDX's own strict schema accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from made_candidates import Turns, project

from noria import formats
from noria.ports import Platform
from noria.registry import bom, candidates, cards, facts
from noria.types import Candidate, Ref


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Platform, Candidate]:
    platform, _ = project(tmp_path / "shop", '[registry]\nlicence = "apache-2.0"')
    return platform, Turns(platform).turn()


def written(platform: Platform) -> Path:
    each = candidates.find(platform, "helpdesk", "latest")
    return platform.lake.path(cards.write(platform, each).ref)


def test_a_card_has_what_a_reader_needs(shop: tuple[Platform, Candidate]) -> None:
    platform, candidate = shop
    text = (written(platform) / cards.CARD).read_text()
    matter, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(matter) == {
        "license": "apache-2.0", "base_model": candidate.base.name, "library_name": "peft",
        "pipeline_tag": "text-generation", "language": ["en"], "tags": ["noria", "lora"],
    }  # fmt: skip
    for head in ("Intended use", "How it was made", "Data", "Measures", "Limits", "Licence", "Energy",
                 "How to make it again", "Files"):  # fmt: skip
        assert f"\n## {head}\n" in body
    told = cards.read(written(platform))
    data = platform.lake.path(Ref.parse(told["dataset"]["ref"])) / "card.json"
    assert told["dataset"]["card"] == formats.sha256(data)
    assert told["dataset"]["card"] in body
    assert "| all | token_f1 | 0.7000 [0.6000, 0.8000] | 0.5000 | +0.2000 [0.1000, 0.3000] | 40 |" in body
    assert "It is certainly worse than the champion of its day on: general (token_f1)." in body
    assert f"noria replay {candidate.ref}" in body
    assert "cc-by-4.0" in body
    assert "Not measured; the training took 12.5 s." in body


def test_the_same_facts_give_the_same_card(shop: tuple[Platform, Candidate]) -> None:
    platform, _ = shop
    assert written(platform) == written(platform)
    assert [path.name for path in sorted(written(platform).iterdir())] == ["README.md", "bom.cdx.json", "card.json"]


def test_the_bill_of_materials_is_valid_and_whole(shop: tuple[Platform, Candidate]) -> None:
    platform, candidate = shop
    text = (written(platform) / cards.BOM).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    told: dict[str, Any] = json.loads(text)
    model = told["metadata"]["component"]
    assert (model["type"], model["bom-ref"]) == ("machine-learning-model", str(candidate.ref))
    performance = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert performance[0] == {
        "type": "token_f1", "value": "0.7", "slice": "all",
        "confidenceInterval": {"lowerBound": "0.6", "upperBound": "0.8"},
    }  # fmt: skip
    by = {part["bom-ref"]: part for part in told["components"]}
    assert by[str(candidate.base)]["type"] == "machine-learning-model"
    data = model["modelCard"]["modelParameters"]["datasets"][0]["ref"]
    assert by[data]["type"] == "data"
    assert by[data]["data"][0]["sensitiveData"] == ["email"]
    assert by[data]["licenses"] == [{"license": {"name": "cc-by-4.0"}}]
    packages = {part["name"]: part for part in told["components"] if part["type"] == "library"}
    assert packages["pydantic"]["purl"].startswith("pkg:pypi/pydantic@")
    assert len([part for part in packages.values() if "licenses" in part]) > 0.8 * len(packages)
    assert candidate.adapter is not None
    folder = platform.lake.path(candidate.adapter)
    files = {part["name"]: part["hashes"][0]["content"] for part in told["components"] if part["type"] == "file"}
    assert files == {path.name: formats.sha256(path) for path in folder.iterdir()}


@pytest.mark.parametrize("lacking", ["environment", "recipe", "dataset", "metrics", "adapter", "training"])
def test_what_is_not_known_leaves_it_valid(shop: tuple[Platform, Candidate], lacking: str) -> None:
    platform, _ = shop
    told = facts.of(platform, candidates.find(platform, "helpdesk", "latest"))
    empty: object = {"environment": {}, "training": {}, "metrics": []}.get(lacking)
    bare = {**told, lacking: empty, "because": "<b>|</b>\n---", "origin": "hf://acme/x@1", "licence": None}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom.of(bare))) is None
    assert cards.markdown(bare).startswith("---\n")


def test_the_energy_of_a_training_is_told_in_watt_hours(shop: tuple[Platform, Candidate]) -> None:
    platform, _ = shop
    known = candidates.find(platform, "helpdesk", "latest")
    made = facts.lineage(platform, known)["adapter"]
    cards.note(platform, made.model_copy(update={"meta": {**made.meta, "joules": 45000.0}}))
    told = facts.of(platform, known)
    assert "The training took 12.5 Wh." in cards.markdown(told)
    assert '"noria:energy_wh", "value": "12.5"' in json.dumps(bom.of(told))
