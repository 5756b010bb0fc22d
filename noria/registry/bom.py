"""The bill of materials of a candidate: CycloneDX 1.6 in JSON (https://cyclonedx.org/docs/1.6/json/).

The candidate is a `machine-learning-model` with a model card; its base, its data set, its files and the packages of the
environment that it was made in are components, each with what is known of its digest and licence.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from noria import __version__, environment
from noria.registry import facts

_SPACE = uuid.UUID("6f1f63a2-5c0b-4a39-9c35-0a6b8b0f2c11")
"""Name space of serial numbers: the same facts have the same one."""
Bom = dict[str, Any]


def of(told: Mapping[str, Any]) -> Bom:
    """The bill of materials of these facts (`noria.registry.facts.of`)."""
    base, data = _base(told["base"]), _data(told["dataset"])
    files, packages = _files(told["adapter"] or {}), _packages(told)
    parts = [base, *([data] if data else []), *files, *packages]
    serial = uuid.uuid5(_SPACE, f"{told['candidate']} {told['report']} {told['verdict']} {told['replay']}")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": told["made"],
            "tools": {"components": [{"type": "application", "name": "noria", "version": __version__}]},
            "component": _model(told, data),
        },
        "components": parts,
        "dependencies": [
            {"ref": told["candidate"], "dependsOn": [each["bom-ref"] for each in parts]},
            *({"ref": each["bom-ref"]} for each in parts),
        ],
    }


def _model(told: Mapping[str, Any], data: Bom | None) -> Bom:
    found: Bom = {
        "type": "machine-learning-model",
        "bom-ref": told["candidate"],
        "name": told["task"],
        "version": told["candidate"].rpartition("@")[2],
        "modelCard": _card(told, data),
        "properties": _properties(told),
    }
    if told["licence"]:
        found["licenses"] = [{"license": {"name": told["licence"]}}]
    return found


def _card(told: Mapping[str, Any], data: Bom | None) -> Bom:
    recipe = told["recipe"] or {}
    parameters: Bom = {
        "approach": {"type": "supervised"},
        "task": "text-classification" if told["kind"] == "classify" else "text-generation",
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }
    if "kind" in recipe:
        parameters["modelArchitecture"] = f"{recipe['kind']} on {told['base']['name']}"
    if data is not None:
        parameters["datasets"] = [{"ref": data["bom-ref"]}]
    considerations: Bom = {
        "useCases": [f"Answers for the task {told['task']}"],
        "technicalLimitations": ["Measured on the sealed rows of its task alone."],
    }
    if told["training"].get("energy_wh") is not None:
        considerations["environmentalConsiderations"] = {
            "properties": [{"name": "noria:energy_wh", "value": f"{told['training']['energy_wh']:g}"}]
        }
    found: Bom = {"modelParameters": parameters, "considerations": considerations}
    if told["metrics"]:
        found["quantitativeAnalysis"] = {"performanceMetrics": [_metric(each) for each in told["metrics"]]}
    return found


def _metric(each: Mapping[str, Any]) -> Bom:
    found: Bom = {"type": each["metric"], "value": f"{each['value']:.6g}", "slice": each["slice"]}
    if each["bounds"]:
        low, high = (f"{bound:.6g}" if isinstance(bound, int | float) else str(bound) for bound in each["bounds"])
        found["confidenceInterval"] = {"lowerBound": low, "upperBound": high}
    return found


def _properties(told: Mapping[str, Any]) -> list[Bom]:
    named = {
        "adapter": (told["adapter"] or {}).get("ref"), "features": told["features"], "report": told["report"],
        "prompt": told["prompt"], "index": told["index"], "engine": told["engine"], "cycle": told["cycle"],
        "quantization": told["quantization"], "environment": told["environment"].get("digest"),
        "origin": told["origin"], "verdict": told["verdict"],
        "packages": None if told["environment"].get("packages") else "as of this document, not of the training",
    }  # fmt: skip
    return [{"name": f"noria:{name}", "value": str(value)} for name, value in named.items() if value]


def _base(base: Mapping[str, Any]) -> Bom:
    found: Bom = {
        "type": "machine-learning-model", "bom-ref": base["ref"], "name": base["name"], "version": base["digest"],
    }  # fmt: skip
    if base["licence"] != facts.UNKNOWN:
        found["licenses"] = [{"license": {"name": base["licence"]}}]
    return found


def _data(data: Mapping[str, Any] | None) -> Bom | None:
    if data is None:
        return None
    licences = sorted({each["licence"] for each in data["sources"]} - {facts.UNKNOWN})
    rows = ", ".join(f"{count} {side}" for side, count in data["rows"].items())
    content: Bom = {"type": "dataset", "name": data["ref"], "description": f"rows: {rows or facts.UNKNOWN}"}
    if data.get("personal_data"):
        content["sensitiveData"] = sorted(data["personal_data"])
    found: Bom = {
        "type": "data", "bom-ref": data["ref"], "name": data["ref"].partition("@")[0],
        "version": data["ref"].rpartition("@")[2], "data": [content],
        "properties": [{"name": "noria:source", "value": each["source"]} for each in data["sources"]],
    }  # fmt: skip
    if licences:
        found["licenses"] = [{"license": {"name": each}} for each in licences]
    if data["card"]:
        found["properties"].append({"name": "noria:card-sha256", "value": data["card"]})
    return found


def _files(adapter: Mapping[str, Any]) -> list[Bom]:
    return [
        {
            "type": "file", "bom-ref": f"{adapter['ref']}/{name}", "name": name,
            "hashes": [{"alg": "SHA-256", "content": each["sha256"]}],
        }
        for name, each in adapter.get("files", {}).items()
    ]  # fmt: skip


def _packages(told: Mapping[str, Any]) -> list[Bom]:
    found = []
    for name, version in facts.packages(told).items():
        purl = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
        part: Bom = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        if licence := environment.licence(name, version):
            text, expression = licence
            part["licenses"] = [{"expression": text}] if expression else [{"license": {"name": text}}]
        found.append(part)
    return found
