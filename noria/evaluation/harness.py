"""Reports of outside harnesses: scores with intervals of what served when they ran."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from noria.errors import NotFound
from noria.evaluation import shelf
from noria.names import Record
from noria.ports import Platform
from noria.types import Artifact, Ref, Scored

HARNESSES = ("lm-eval", "garak")
KIND = "harness"
FILE = "harness.json"


class HarnessReport(Record):
    """What one run of a harness found.

    `candidate` is the ref of what served, `model` what it was called; `settings` repeat the run. Names of scores are
    `lm-eval.TASK.METRIC` and `garak.PROBE.DETECTOR`; more is better unless a score says otherwise.
    """

    harness: str
    version: str
    task: str
    model: str
    candidate: str
    at: datetime
    settings: dict[str, JsonValue]
    scores: dict[str, Scored]
    notes: tuple[str, ...] = ()


def store(platform: Platform, report: HarnessReport, files: Mapping[str, Path], began: float) -> Artifact:
    """Keep a report as `harness:NAME@…` with the harness's own files, by the names they are to have."""
    folder = platform.lake.scratch(f"harness-{report.harness}-{report.at:%Y%m%d%H%M%S%f}")
    (folder / FILE).write_text(report.model_dump_json(indent=1))
    for name, file in files.items():
        shutil.copyfile(file, folder / name)
    meta: dict[str, JsonValue] = {"candidate": report.candidate, "at": report.at.isoformat()}
    return shelf.put(platform, KIND, report.harness, report.task, folder, meta, began)


def load(folder: Path) -> HarnessReport:
    """The report in an artifact's folder; raises NotFound."""
    file = folder / FILE
    if not file.is_file():
        raise NotFound(f"'{folder.name}' holds no report of a harness", "list them: noria evaluate list")
    return HarnessReport.model_validate_json(file.read_text())


def kept(platform: Platform, task: str) -> Iterator[tuple[Ref, HarnessReport]]:
    """Every harness report of a task, newest first within each harness."""
    for name in HARNESSES:
        for artifact in shelf.kept(platform, KIND, name, task):
            yield artifact.ref, load(platform.lake.path(artifact.ref))


def latest(platform: Platform, task: str, candidate_ref: str) -> dict[str, Scored]:
    """The latest value of every score that a harness has given to this candidate; empty where none was run."""
    found: dict[str, Scored] = {}
    for _, report in kept(platform, task):
        if report.candidate == candidate_ref:
            for name, score in report.scores.items():
                found.setdefault(name, score)
    return found
