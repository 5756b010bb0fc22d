"""`noria registry push` and `pull`: candidates to and from other places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noria import adapters, cycle, formats
from noria.backends.places import Place, open_place
from noria.backends.scratch import temporary
from noria.errors import Denied, Invalid
from noria.evaluation import report
from noria.ports import Platform, Progress
from noria.registry import candidates, packages, versions
from noria.registry.packages import MANIFEST, Manifest
from noria.stage import Look
from noria.types import Artifact, Candidate, Ref


def push(platform: Platform, task: str, which: str, to: str, *, probes: bool) -> dict[str, Any]:
    """Send a candidate's package; returns the address that names exactly what was sent.

    Raises Denied where [registry] does not allow it or a token is missing, and what `packages.write` raises.
    """
    place = _allowed(platform, to)
    each = candidates.find(platform, task, which)
    with temporary("noria-push.") as folder:
        manifest = packages.write(platform, each, folder, probes=probes)
        address = place.send(folder, f"noria: {each.ref}")
    return {"candidate": each.ref, "to": address, "files": sorted(manifest.all)}


def pull(platform: Platform, task: str, source: str, progress: Progress, *, measured: bool) -> dict[str, Any]:
    """Fetch a package or a stranger's adapter and make it a candidate of the task, which serves nothing yet.

    Where `measured` a report on it is made at once, as a cycle would. Raises Denied where [registry] does not allow
    it; Invalid for what may hold code, was changed on its way, or was made for another base.
    """
    place = _allowed(platform, source)
    there = place.files()
    with temporary("noria-pull.") as folder:
        manifest = _manifest(place, there, folder)
        wanted = sorted(manifest.files) if manifest else formats.chosen(there)
        _check_weights(source, wanted)
        progress.update("pull", 0, len(wanted), place.address)
        adapter = folder / "adapter"
        adapter.mkdir()
        for done, name in enumerate(wanted, 1):
            place.fetch([name], adapter)
            progress.update("pull", done, len(wanted), name)
        _verified(there, adapter, wanted, manifest)
        if manifest is not None:
            _check_base(platform, task, manifest)
        adapters.kind_of(adapter)

        def candidate(ref: Ref) -> Candidate:
            return report.candidate(_look(platform, task), ref)

        each = packages.bring_in(platform, task, candidate, adapter, place.address, manifest)
    if measured:
        assert each.candidate.adapter is not None
        made = platform.runs.artifact(each.candidate.adapter)
        assert made is not None
        cycle.measure(platform, task, made, progress)
    versions.best_effort(platform, task, lambda line: progress.update("registry", 0, 1, line))
    version = candidates.version(platform, each)
    return {
        "candidate": each.ref, "adapter": str(each.candidate.adapter), "origin": each.origin, "version": version,
        "was": str(manifest.candidate.ref) if manifest else None, "files": wanted, "measured": measured,
    }  # fmt: skip


def _allowed(platform: Platform, address: str) -> Place:
    settings = platform.settings
    if not settings.registry.share:
        raise Denied(
            f"[registry] does not allow '{address}' to be written or read", "share = true in [registry]",
            where=settings.place("registry"),
        )  # fmt: skip
    return open_place(address, settings.registry, Path.cwd())


def _manifest(place: Place, there: dict[str, str | None], folder: Path) -> Manifest | None:
    if MANIFEST not in there:
        return None
    place.fetch([MANIFEST], folder)
    manifest = packages.read(folder / MANIFEST)
    if missing := sorted(manifest.files.keys() - there.keys()):
        raise Invalid(f"'{missing[0]}' is missing at '{place.address}'", "push it again")
    return manifest


def _check_weights(source: str, wanted: list[str]) -> None:
    if not wanted:
        raise Invalid(f"'{source}' holds nothing that an adapter is made of", "name the place of a package")


def _verified(there: dict[str, str | None], folder: Path, wanted: list[str], manifest: Manifest | None) -> None:
    """What was fetched is what was pushed, or what the place says that it holds; and nothing of it can run code."""
    for name in wanted:
        known = there[name]
        if known is not None and formats.sha256(folder / name) != known:
            raise Invalid(f"'{name}' is not the file that the hub has: its SHA-256 is another", "pull it again")
    if manifest is not None:
        packages.check(manifest, folder)
    formats.check_folder(folder)


def _check_base(platform: Platform, task: str, manifest: Manifest) -> None:
    mine = report.candidate(_look(platform, task), None)
    if manifest.candidate.base != mine.base:
        raise Invalid(
            f"'{manifest.candidate.ref}' was made for '{manifest.candidate.base}', and task '{task}' has '{mine.base}'",
            "give the task that base, or pull for another task",
            where=platform.settings.place("tasks", task, "base"),
        )


def _look(platform: Platform, task: str) -> Look:
    """What a candidate of the task is made of beside its adapter: for a context, the index of its latest data set."""
    inputs: dict[str, Artifact] = {}
    settings = platform.settings.tasks[task]
    if settings.context is not None:
        inputs["dataset"] = cycle.latest(platform, task, "dataset")
    return Look(platform, task, settings, inputs)
