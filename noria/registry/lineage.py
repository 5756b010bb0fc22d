"""Walks from an answer to the adapter, the evidence that promoted it and the very rows that trained it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria import adapters
from noria.errors import NotFound
from noria.ports import Platform
from noria.registry import candidates
from noria.types import Artifact, Candidate, Deployment, Interaction, Ref, Wording

HISTORY = 10_000
"""Releases of a task that are searched for a candidate."""


def explain(platform: Platform, identity: str, limit: int = 5) -> dict[str, Any]:
    """Why an answer is what it is.

    Args:
        platform: the opened back-ends.
        identity: id of the interaction (header `x-noria-interaction`).
        limit: how many training rows to show; those that share most words with the question come first.

    Returns:
        answer, served_by, model, decision, report, adapter, dataset, rows, sources and wording, ready for JSON; what
        does not exist (the base has no adapter) is None or empty. Where words stand in the prompt, `rows` are all those
        among them, in their order, and `wording` has the system prompt.

    Raises:
        NotFound: no such interaction.
    """
    told = platform.traffic.interaction(identity)
    if told is None:
        raise NotFound(f"there is no answer '{identity}'", "its id stands in the header x-noria-interaction")
    release, champion = _release(platform, told)
    adapter = champion.adapter if champion else None
    chain: dict[str, Artifact] = {}
    for made in ancestors(platform, adapter) if adapter else ():
        chain.setdefault(made.ref.kind, made)
    dataset = chain["dataset"].ref if "dataset" in chain else None
    wording = adapters.wording_of(platform.lake, adapter) if adapter and platform.lake.has(adapter) else None
    rows = _shown(platform, chain, wording) if wording else _rows(platform, chain, told, limit)
    return {
        "answer": {
            "id": told.id,
            "at": told.at.isoformat(),
            "task": told.task,
            "question": _question(told),
            "text": told.answer,
            "context": told.context,
            "documents": _documents(platform, champion, told),
            "arm": told.arm,
        },
        "served_by": told.served_by,
        "model": _model(platform, told.served_by, chain),
        "decision": release.decision.model_dump(mode="json") if release else None,
        "report": _report(platform, release),
        "adapter": str(adapter) if adapter else None,
        "dataset": str(dataset) if dataset else None,
        "rows": [{name: row[name] for name in ("id", "origin", "text")} for row in rows],
        "sources": _sources(platform, chain, rows),
        "wording": {"system": wording.system, "shots": len(wording.shots)} if wording else None,
    }


def _model(platform: Platform, served_by: str, chain: dict[str, Artifact]) -> dict[str, Any] | None:
    """The model version of what answered, its card, and whether its training could be repeated."""
    card = candidates.carded(platform, served_by)
    if card is None:
        return None
    replay = chain["adapter"].meta.get("replay") if "adapter" in chain else None
    version = candidates.version_of(card)
    return {"name": card.ref.name, "version": version, "card": str(card.ref), "replay": replay}


def ancestors(platform: Platform, ref: Ref) -> Iterator[Artifact]:
    """The artifact and, nearest first, all that it was made from."""
    queue, seen = [ref], set[Ref]()
    while queue:
        here = queue.pop(0)
        made = platform.runs.artifact(here) if here not in seen else None
        if made is not None:
            seen.add(here)
            yield made
            # The adapter that a training went on from is an ancestor too, but its own dataset is an older one. What was
            # made smaller has learned what the adapter it was made from has learned, and nothing else.
            queue += [parent for parent in made.parents if parent.kind != "adapter" or "shrunk" in made.meta]


def _release(platform: Platform, told: Interaction) -> tuple[Deployment | None, Candidate | None]:
    """The release that brought what answered to where it answered: as a champion, or as a challenger on trial.

    That is the latest one before the answer; the earliest one where clocks disagree.
    """
    found: tuple[Deployment | None, Candidate | None] = None, None
    releases = platform.deployments.history(told.task, HISTORY)
    for release, before in zip(releases, [*releases[1:], None], strict=False):
        for mine, former in (
            (release.champion, before.champion if before else None),
            (release.challenger, before.challenger if before else None),
        ):
            new = mine is not None and mine != former and release.decision.verdict == "promote"
            if new and mine is not None and str(mine.ref) == told.served_by:
                found = release, mine
                if release.at <= told.at:
                    return found
    return found


def _report(platform: Platform, release: Deployment | None) -> str | None:
    if release is None:
        return None
    for cycle, runs in platform.runs.cycles(release.task, HISTORY):
        if cycle.id == release.cycle:
            return next((str(run.output) for run in runs if run.stage == "report"), None)
    return None


def _rows(platform: Platform, chain: dict[str, Artifact], told: Interaction, limit: int) -> list[dict[str, Any]]:
    if "dataset" not in chain or "features" not in chain:
        return []
    learned = pq.read_table(platform.lake.path(chain["features"].ref) / "features.parquet", columns=["id"])
    ids = set(learned.column("id").to_pylist())
    asked = _words(_question(told))
    found = []
    for row in pq.read_table(platform.lake.path(chain["dataset"].ref) / "train.parquet").to_pylist():
        if row["id"] in ids:
            question = json.loads(row["messages"])[-1]["content"]
            words = _words(question)
            near = len(asked & words) / max(1, len(asked | words))
            found.append((near, row | {"text": f"{question} -> {row['target']}"}))
    found.sort(key=lambda item: (-item[0], item[1]["id"]))
    return [row for _, row in found[:limit]]


def _shown(platform: Platform, chain: dict[str, Artifact], wording: Wording) -> list[dict[str, Any]]:
    """The rows that stand in the prompt."""
    if "dataset" not in chain:
        return []
    table = pq.read_table(platform.lake.path(chain["dataset"].ref) / "train.parquet").to_pylist()
    rows = {row["id"]: row for row in table}
    return [
        rows[shot.id] | {"text": f"{shot.messages[-1].content} -> {shot.target}"}
        for shot in wording.shots
        if shot.id in rows
    ]


def _sources(platform: Platform, chain: dict[str, Artifact], rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    wanted = {row["document"] for row in rows if row["document"]}
    sources: dict[tuple[str, str, str], None] = {}
    if "documents" in chain and wanted:
        table = pq.read_table(
            platform.lake.path(chain["documents"].ref) / "documents.parquet", columns=["id", "source", "file", "digest"]
        )
        for document in table.to_pylist():
            if document["id"] in wanted:
                sources[document["source"], document["file"], document["digest"]] = None
    for row in rows:
        if row["origin"].startswith("traffic"):
            sources["traffic", row["conversation"], row["id"]] = None
    return [{"name": name, "file": file, "digest": digest} for name, file, digest in sources]


def _documents(platform: Platform, champion: Candidate | None, told: Interaction) -> list[dict[str, str]]:
    """The documents in the context of the answer, by name and file, as far as they are still known."""
    chain = ancestors(platform, champion.index) if champion and champion.index and told.sources else ()
    made = next((each for each in chain if each.ref.kind == "documents" and platform.lake.has(each.ref)), None)
    if made is None:
        return [{"id": identity, "name": "", "file": ""} for identity in told.sources]
    file = platform.lake.path(made.ref) / "documents.parquet"
    wanted = pc.field("id").isin(list(told.sources))
    rows = pq.read_table(file, columns=["id", "source", "file"], filters=wanted).to_pylist()
    known = {row["id"]: row for row in rows}
    return [
        {"id": each, "name": known[each]["source"], "file": known[each]["file"]}
        if each in known
        else {"id": each, "name": "", "file": ""}
        for each in told.sources
    ]


def _question(told: Interaction) -> str:
    for message in reversed(told.messages):
        if message.get("role") == "user":
            content = message.get("content")
            return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return ""


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
