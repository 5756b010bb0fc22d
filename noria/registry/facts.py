"""All that is known of a candidate, as JSON: what its card tells and its bill of materials lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from noria import __version__, adapters, environment, formats, prompts
from noria.errors import NoriaError
from noria.ports import Platform
from noria.registry import candidates
from noria.registry.candidates import Known
from noria.registry.lineage import ancestors
from noria.types import Artifact, Candidate, Ref, digest_of

UNKNOWN = "unknown"
_TRAINING = (
    "seconds", "training_seconds", "steps", "tokens", "tokens_per_s", "peak_mb", "first_loss", "last_loss", "rows",
    "trained_parameters", "start",
)  # fmt: skip
"""What of a training's measures a card tells, as far as a recipe has measured it."""
_ENVIRONMENT = ("digest", "python", "machine")


def lineage(platform: Platform, each: Known) -> dict[str, Artifact]:
    """What a candidate was made from, the nearest of each kind: adapter, features, dataset, documents, sources."""
    chain: dict[str, Artifact] = {}
    for made in ancestors(platform, each.candidate.adapter) if each.candidate.adapter else ():
        chain.setdefault(made.ref.kind, made)
    for ref in each.report.parents if each.report else ():
        sealed = platform.runs.artifact(ref) if ref.kind == "dataset" else None
        if sealed is not None:
            chain.setdefault("dataset", sealed)
    return chain


def of(platform: Platform, each: Known) -> dict[str, Any]:
    """The facts about a candidate. Nothing in them changes but by a later report, decision, replay or forgetting."""
    chain = lineage(platform, each)
    adapter = chain.get("adapter")
    meta = adapter.meta if adapter is not None else {}
    recipe = meta.get("recipe")
    report = candidates.report(platform, each)
    task = platform.settings.tasks[each.candidate.task]
    return {
        "candidate": each.ref,
        "task": each.candidate.task,
        "kind": task.kind,
        "noria": __version__,
        "made": each.at.isoformat(timespec="seconds"),
        "cycle": each.cycle,
        "origin": each.origin or None,
        "system": _system(platform, each.candidate, task.system),
        "base": _base(platform, each),
        "engine": each.candidate.engine,
        "quantization": each.candidate.quantization,
        "prompt": each.candidate.prompt,
        "index": str(each.candidate.index) if each.candidate.index else None,
        "recipe": recipe if isinstance(recipe, dict) else None,
        "training": _training(meta),
        "environment": _environment(meta),
        "adapter": _adapter(platform, each.candidate.adapter, adapter),
        "features": str(chain["features"].ref) if "features" in chain else None,
        "dataset": _dataset(platform, chain.get("dataset")),
        "report": str(each.report.ref) if each.report else None,
        "champion": _champion(report),
        "metrics": _metrics(report),
        "checks": report.get("checks", {}),
        "verdict": each.verdict or None,
        "because": each.because or None,
        "replay": meta.get("replay"),
        "licence": platform.settings.registry.licence,
    }


def state(platform: Platform, each: Known) -> str:
    """Digest of all that may change the facts about a candidate: they are as they were while it is the same."""
    ref = each.candidate.adapter
    made = platform.runs.artifact(ref) if ref is not None else None
    return digest_of(
        {
            "noria": __version__, "report": str(each.report.ref) if each.report else None, "cycle": each.cycle,
            "verdict": each.verdict, "because": each.because, "origin": each.origin,
            "replay": made.meta.get("replay") if made is not None else None,
            "there": ref is not None and platform.lake.has(ref),
            "forgotten": forgotten(platform, ref) if ref is not None else None,
            "licence": platform.settings.registry.licence,
        }
    )  # fmt: skip


def _system(platform: Platform, candidate: Candidate, present: str | None) -> str | None:
    """The system prompt that the candidate was measured with; None where that is no longer known."""
    try:
        wording = adapters.wording_of(platform.lake, candidate.adapter)
    except NoriaError:
        wording = None
    if wording is not None and wording.system is not None:
        return wording.system
    return present if prompts.definition(present, wording) == candidate.prompt else None


def _training(meta: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: meta[name] for name in _TRAINING if meta.get(name) is not None}
    joules = meta.get("joules")
    # A watt-hour is 3600 joules.
    return told | ({"energy_wh": round(joules / 3600, 6)} if isinstance(joules, int | float) else {})


def packages(facts: Mapping[str, Any]) -> Mapping[str, str]:
    """The packages of the environment that a candidate was made in; the present ones where that was not recorded."""
    named: Mapping[str, str] = facts["environment"].get("packages", {})
    return named or environment.packages()


def _environment(meta: Mapping[str, Any]) -> dict[str, Any]:
    told = meta.get("environment")
    if not isinstance(told, dict):
        return {}
    return {**{name: told.get(name) for name in _ENVIRONMENT}, "packages": told.get("packages", {})}


def _base(platform: Platform, each: Known) -> dict[str, Any]:
    """The base by name and digest, with the licence that its own file tells."""
    base = each.candidate.base
    told: dict[str, Any] = {"ref": str(base), "name": base.name, "digest": base.digest, "licence": UNKNOWN}
    engine = platform.settings.engines.get(each.candidate.engine)
    if engine is not None and engine.model is not None:
        try:
            file = platform.model(engine.model)
        except NoriaError:
            return told
        # The file may have been replaced since.
        if platform.engines[engine.kind].base(engine)[0] == base:
            told["licence"] = formats.gguf_text(file, "general.license") or UNKNOWN
    return told


def _adapter(platform: Platform, ref: Ref | None, made: Artifact | None) -> dict[str, Any] | None:
    if ref is None:
        return None
    told: dict[str, Any] = {"ref": str(ref), "run_key": made.run_key if made else None, "kind": UNKNOWN, "files": {}}
    if platform.lake.has(ref):
        folder = platform.lake.path(ref)
        told["kind"] = adapters.kind_of(folder)
        told["files"] = {
            file.relative_to(folder).as_posix(): {"sha256": formats.sha256(file), "bytes": file.stat().st_size}
            for file in formats.files_of(folder)
            if file.name != adapters.FORGOTTEN
        }
        told["forgotten"] = forgotten(platform, ref)
    return told


def forgotten(platform: Platform, ref: Ref) -> str | None:
    """When rows that an adapter has learned from were taken out last; None for one that nothing was taken from."""
    file = platform.lake.path(ref) / adapters.FORGOTTEN if platform.lake.has(ref) else None
    return str(json.loads(file.read_text())[-1]["at"]) if file is not None and file.is_file() else None


def _dataset(platform: Platform, made: Artifact | None) -> dict[str, Any] | None:
    """The data set with the digest of its own card, and what that says of sources, rows and languages."""
    if made is None:
        return None
    told: dict[str, Any] = {"ref": str(made.ref), "card": None, "rows": {}, "languages": {}, "sources": []}
    file = platform.lake.path(made.ref) / "card.json" if platform.lake.has(made.ref) else None
    if file is None or not file.is_file():
        return told
    card = json.loads(file.read_text(encoding="utf-8"))
    sources = [
        {"source": each["source"], "kind": each.get("kind"), "licence": each.get("licence") or UNKNOWN}
        for each in card.get("sources", [])
    ]
    return {
        **told, "card": formats.sha256(file), "rows": card.get("rows", {}), "languages": card.get("languages", {}),
        "sources": sources, "personal_data": card.get("personal_data", {}),
    }  # fmt: skip


def _champion(report: Mapping[str, Any]) -> str | None:
    return str(Candidate.model_validate(report["champion"]).ref) if report.get("champion") else None


def _metrics(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every slice and metric of a report: the candidate's value with its interval, the champion's and the gain's."""
    return [
        {
            "slice": group, "metric": name, "value": told["after"], "bounds": told.get("after_bounds"),
            "champion": told["before"], "gain": told["gain"], "low": told["low"], "high": told["high"],
            "rows": told["rows"], "confidence": told["confidence"], "higher_is_better": told["higher_is_better"],
        }
        for group, found in report.get("intervals", {}).items()
        for name, told in found.items()
    ]  # fmt: skip
