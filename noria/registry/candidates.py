"""Candidates of a task as the ledger has them: what was measured or brought in, and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from noria.errors import Invalid, NotFound
from noria.ports import Platform
from noria.settings import known
from noria.types import Artifact, Candidate, Run, digest_of

CYCLES = 1000
"""Cycles that are looked through."""
IMPORT = "import"
"""Stage of a run that brought a candidate in from elsewhere."""


@dataclass(frozen=True, slots=True)
class Known:
    """A candidate that has a report, or that was brought in; `verdict` is the gate's on the latest report."""

    candidate: Candidate
    at: datetime
    cycle: str
    report: Artifact | None = None
    verdict: str = ""
    because: str = ""
    origin: str = ""

    @property
    def ref(self) -> str:
        """Its name."""
        return str(self.candidate.ref)


def of(platform: Platform, task: str) -> list[Known]:
    """Every candidate of a task whose report the lake still has, and every one brought in; oldest first."""
    found: dict[str, Known] = {}
    for cycle, runs in reversed(platform.runs.cycles(task, CYCLES)):
        by = {run.stage: run for run in runs}
        for here in (_imported(platform, by, cycle.id), _measured(platform, by, cycle.id)):
            if here is not None:
                before = found.get(here.ref)
                origin = here.origin or (before.origin if before else "")
                found[here.ref] = Known(
                    here.candidate, before.at if before else here.at, here.cycle,
                    here.report or (before.report if before else None), here.verdict, here.because, origin,
                )  # fmt: skip
    return [*found.values()]


def find(platform: Platform, task: str, text: str) -> Known:
    """The candidate that a person named: its ref, a part of its digest, its version, an alias, or `latest`.

    Raises NotFound where there is none, Invalid where several are meant.
    """
    every = of(platform, task)
    if not every:
        raise NotFound(f"'{task}' has no candidate yet", f"make one: noria run --task {task}")
    live = platform.deployments.current(task)
    serving = {"champion": live.champion, "challenger": live.challenger} if live else {}
    if text in ("champion", "challenger"):
        wanted = serving.get(text)
        matching = [each for each in every if each.candidate == wanted]
    elif text == "latest":
        matching = every[-1:]
    elif text.isdigit() and len(text) < 8:
        matching = [each for each in every if (version(platform, each) or "") == text]
    else:
        digest = text.rpartition("@")[2].strip().rstrip("….")
        matching = [each for each in every if digest and each.candidate.ref.digest.startswith(digest)]
    if not matching:
        names = {each.candidate.ref.digest for each in every} | {"champion", "challenger", "latest"}
        raise NotFound(f"'{task}' has no candidate '{text}'", known(text, names))
    if len(matching) > 1:
        raise Invalid(f"'{text}' may be {', '.join(each.ref for each in matching[:4])}", "write more of it")
    return matching[0]


def key(candidate: str) -> str:
    """Key of the run that writes a candidate's card."""
    return digest_of({"card": candidate})


def carded(platform: Platform, candidate: str) -> Artifact | None:
    """The card of a candidate, whose `meta` says which version of which registered model it is."""
    return platform.runs.find(key(candidate))


def version(platform: Platform, each: Known) -> str | None:
    """The model version of a candidate, where it is registered."""
    return version_of(carded(platform, each.ref))


def version_of(card: Artifact | None) -> str | None:
    """The model version that a card belongs to; None where it was removed or never registered."""
    meta = card.meta if card is not None else {}
    return str(meta["version"]) if meta.get("version") and not meta.get("removed") else None


def report(platform: Platform, each: Known) -> dict[str, Any]:
    """The report of a candidate as JSON; empty where it has none."""
    if each.report is None or not platform.lake.has(each.report.ref):
        return {}
    told: dict[str, Any] = json.loads((platform.lake.path(each.report.ref) / "report.json").read_text(encoding="utf-8"))
    return told


def _measured(platform: Platform, by: dict[str, Run], cycle: str) -> Known | None:
    run = by.get("report")
    made = platform.runs.artifact(run.output) if run is not None else None
    if run is None or made is None or not platform.lake.has(run.output):
        return None
    told = json.loads((platform.lake.path(run.output) / "report.json").read_text(encoding="utf-8"))
    if "candidate" not in told:
        return None
    release = platform.runs.artifact(by["release"].output) if "release" in by else None
    meta = release.meta if release is not None else {}
    verdict, because = str(meta.get("verdict", "")), str(meta.get("because", ""))
    return Known(Candidate.model_validate(told["candidate"]), run.at, cycle, made, verdict, because)


def _imported(platform: Platform, by: dict[str, Run], cycle: str) -> Known | None:
    run = by.get(IMPORT)
    made = platform.runs.artifact(run.output) if run is not None else None
    if run is None or made is None:
        return None
    candidate = Candidate.model_validate(made.meta["candidate"])
    return Known(candidate, run.at, cycle, origin=str(made.meta.get("origin", "")))
