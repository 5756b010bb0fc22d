"""What `noria registry` tells and does, as values ready for JSON."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from noria.errors import Conflict, NotFound
from noria.ports import Platform
from noria.registry import candidates, cards, packages
from noria.registry.candidates import Known
from noria.types import ModelVersion


def listed(platform: Platform, task: str) -> list[dict[str, Any]]:
    """Every model version of a task as the registry has it, newest first, and the candidates that have none."""
    there = platform.registry.versions(task)
    known = {each.candidate for each in there}
    lacking = [each for each in candidates.of(platform, task) if each.ref not in known]
    return [*(_told(each) for each in there), *(_lacking(platform, each) for each in reversed(lacking))]


def shown(platform: Platform, task: str, text: str) -> tuple[dict[str, Any], str]:
    """A candidate's card as JSON and as Markdown, with its version; read from the ledger, MLflow is not asked.

    Raises NotFound for a candidate that has no card yet.
    """
    each = candidates.find(platform, task, text)
    card = candidates.carded(platform, each.ref)
    if card is None or not platform.lake.has(card.ref):
        raise NotFound(f"'{each.ref}' has no card yet", f"noria registry sync {task}")
    folder = platform.lake.path(card.ref)
    told = {
        "candidate": each.ref, "model": task, "version": candidates.version_of(card), "card": str(card.ref),
        "files": {name: str(folder / name) for name in (cards.CARD, cards.CARD_JSON, cards.BOM)},
        "facts": cards.read(folder),
    }  # fmt: skip
    return told, (folder / cards.CARD).read_text(encoding="utf-8")


def bill(platform: Platform, task: str, text: str) -> str:
    """A candidate's bill of materials, as CycloneDX writes it."""
    told, _ = shown(platform, task, text)
    return Path(told["files"][cards.BOM]).read_text(encoding="utf-8")


def exported(platform: Platform, task: str, text: str, to: Path, *, probes: bool) -> dict[str, Any]:
    """Write a candidate's package into a folder that is not there yet; raises Conflict where something is."""
    each = candidates.find(platform, task, text)
    if to.exists() and any(to.iterdir()):
        raise Conflict(f"'{to}' is not empty", "name a folder that is not there yet")
    fresh = to.with_name(f".{to.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        manifest = packages.write(platform, each, fresh, probes=probes)
        if to.exists():
            to.rmdir()
        fresh.rename(to)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return {"candidate": each.ref, "folder": str(to), "files": sorted(manifest.files)}


def _told(each: ModelVersion) -> dict[str, Any]:
    return {
        "version": each.version, "aliases": list(each.aliases), "candidate": each.candidate,
        "verdict": each.tags.get("verdict"), "recipe": each.tags.get("recipe"), "tags": dict(each.tags),
    }  # fmt: skip


def _lacking(platform: Platform, each: Known) -> dict[str, Any]:
    card = candidates.carded(platform, each.ref)
    removed = card is not None and card.meta.get("removed") is not None
    return {
        "version": None, "aliases": [], "candidate": each.ref, "verdict": each.verdict, "recipe": None, "tags": {},
        "removed": removed,
    }  # fmt: skip
