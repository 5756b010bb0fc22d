"""A candidate as files to carry elsewhere: its adapter, card, bill of materials and a manifest of digests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import JsonValue, ValidationError

from noria import adapters, formats
from noria.errors import Conflict, Invalid, NotFound
from noria.names import Record
from noria.ports import Platform
from noria.registry import cards
from noria.registry.candidates import IMPORT, Known
from noria.types import Artifact, Candidate, Cycle, Ref, Run, digest_of, new_id

MANIFEST = "noria.json"
_BESIDE = (cards.CARD, cards.CARD_JSON, cards.BOM)
_LARGEST = 1 << 20
"""Bytes of a manifest."""


class Manifest(Record):
    """What is in a package. `files` are the adapter's with their SHA-256, `beside` all others."""

    format: int = 1
    candidate: Candidate
    kind: adapters.Kind
    files: dict[str, str]
    beside: dict[str, str]

    @property
    def all(self) -> dict[str, str]:
        """Every file with its SHA-256."""
        return {**self.beside, **self.files}


def write(platform: Platform, each: Known, to: Path, *, probes: bool) -> Manifest:
    """Write a candidate's package into an empty folder.

    Raises NotFound where its adapter is gone, Conflict where it has learned from forgotten rows, Invalid where a file
    was changed or may hold code.
    """
    ref = each.candidate.adapter
    if ref is None:
        raise NotFound(f"'{each.ref}' has no adapter: it is the base with a prompt", "nothing has to be carried")
    if (platform.lake.path(ref) / adapters.FORGOTTEN).exists():
        raise Conflict(f"'{ref}' has learned from rows that were to be forgotten", "train anew, and push that")
    folder = platform.lake.verified(ref)
    formats.check_folder(folder)
    card = platform.lake.path(cards.write(platform, each).ref)
    # Beginnings of training rows, as token ids: left out unless they are asked for.
    left_out = {adapters.FORGOTTEN, *(() if probes else (adapters.PROBES,))}
    files = _copied(folder, to, left_out | {*_BESIDE, MANIFEST})
    beside = _copied(card, to, set())
    manifest = Manifest(candidate=each.candidate, kind=adapters.kind_of(folder), files=files, beside=beside)
    (to / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    return manifest


def read(file: Path) -> Manifest:
    """A package's manifest; raises Invalid for one that this version cannot read, or that names what may not come."""
    if file.stat().st_size > _LARGEST:
        raise Invalid(f"'{file.name}' is too large for a manifest", "take the package from somebody else")
    try:
        manifest = Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Invalid(f"'{file.name}' is no manifest of noria: '{place}' {first['msg']}", "push it again") from error
    if manifest.format != 1:
        raise Invalid(f"'{file.name}' is of format {manifest.format}", "use the version of noria that made it")
    formats.check_names(manifest.all)
    return manifest


def check(manifest: Manifest, folder: Path) -> None:
    """Raise Invalid for a file that is not there, was changed on its way, or may hold code."""
    for name, wanted in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise Invalid(f"'{name}' is missing", "push it again")
        if formats.sha256(file) != wanted:
            raise Invalid(f"'{name}' is not the file that was pushed: its SHA-256 is another", "push it again")
    formats.check_folder(folder)


def bring_in(
    platform: Platform,
    task: str,
    candidate: Callable[[Ref], Candidate],
    folder: Path,
    origin: str,
    manifest: Manifest | None,
    *,
    parents: tuple[Ref, ...] = (),
    noted: Mapping[str, JsonValue] | None = None,
) -> Known:
    """Make an adapter that no cycle made an artifact of the lake and a candidate of the task, with its origin.

    `folder` holds the adapter's files and nothing else; `candidate` says what would be served with the adapter.
    `parents` are what it was made from, where that is known, and `noted` what was measured while making it.
    """
    now = platform.clock.now()
    cycle = Cycle(id=new_id(now), task=task, began=now, ended=now)
    scratch = platform.lake.scratch(f"import-{cycle.id}")
    for file in formats.files_of(folder):
        place = scratch / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    ref = platform.lake.commit(scratch, "adapter", task)
    made = candidate(ref)
    meta: dict[str, JsonValue] = {"origin": origin, "candidate": made.model_dump(mode="json"), **(noted or {})}
    if manifest is not None:
        meta["was"] = str(manifest.candidate.ref)
    key = digest_of({"import": str(made.ref), "origin": origin})
    run = Run(key=key, stage=IMPORT, task=task, cycle=cycle.id, output=ref, seconds=0.0, peak_mb=0.0, at=now)
    platform.runs.save(cycle)
    # An adapter that was made here keeps what is known of its making.
    known = platform.runs.artifact(ref)
    artifact = Artifact(ref=ref, parents=parents, run_key=key, meta=meta)
    if known is not None:
        artifact = known.model_copy(update={"meta": {**known.meta, **meta}})
    platform.runs.record(run, artifact)
    return Known(made, now, cycle.id, origin=origin)


def _copied(folder: Path, to: Path, besides: set[str]) -> dict[str, str]:
    found = {}
    for file in formats.files_of(folder):
        name = file.relative_to(folder).as_posix()
        if name not in besides:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to / name)
            found[name] = formats.sha256(to / name)
    return found
