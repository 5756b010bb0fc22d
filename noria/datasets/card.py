"""The data set's card: what is in it, where it came from, what was done to it. README.md and card.json beside its rows.

The front matter is that of a Hugging Face dataset card, so that the folder can be read by `datasets.load_dataset`. The
card is part of the artifact, whose name is its content: it tells nothing of when it was made, nor of the traffic that
taught nothing. `noria data card` adds that from the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import yaml
from pydantic import JsonValue

from noria import __version__
from noria.datasets import examples, profile
from noria.datasets.profile import Folders
from noria.datasets.rows import write_json
from noria.datasets.scrub import Recognise
from noria.settings import SourceSettings, TaskSettings
from noria.stage import Look, Work

CARD, CARD_JSON = "README.md", "card.json"
FILES = 50
"""Files of a source that are listed one by one in the Markdown; the JSON has all."""
SIZES = (1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
COLUMNS = {
    "id": "digest of question and answer",
    "origin": "source:NAME, or what was said of traffic",
    "slice": "group of rows that reports tell apart",
    "conversation": "rows of one conversation are on one side",
    "messages": "the conversation up to the question, as JSON of OpenAI's messages",
    "context": "what retrieval put beside the question",
    "target": "the wanted answer",
    "split": "train or test",
    "document": "id of the document that it came from",
}
DONE = {"replace": "replaced by kind", "pseudonym": "replaced by a pseudonym", "drop": "dropped with its row"}
_TASKS = {"chat": ["text-generation", "question-answering"], "classify": ["text-classification"]}


def params(look: Look) -> JsonValue:
    """What changes the rows, and what the card says of them."""
    used = [look.platform.settings.source(name) for name in look.task.source_names]
    return {"rows": examples.params(look), "licences": {source.name: source.licence for source in used}}


def work(work: Work, *, recogniser: Callable[[], Recognise] | None = None) -> Mapping[str, JsonValue]:
    """The stage `dataset`: its rows, and then its card beside them."""
    measured = examples.work(work, recogniser)
    folders = Folders(dataset=work.out, documents=work.folder("documents"), sources=work.folder("sources"))
    settings = work.platform.settings
    used = {source.name: source for source in settings.sources}
    card = describe(work.name, work.task, used, folders)
    card["parents"] = [str(work.inputs["documents"].ref)]
    write_json(card, work.out / CARD_JSON)
    (work.out / CARD).write_text(markdown(card), encoding="utf-8")
    return measured


def describe(
    name: str, task: TaskSettings, sources: Mapping[str, SourceSettings], folders: Folders
) -> dict[str, JsonValue]:
    """The card of the data set in `folders.dataset` as JSON."""
    assert folders.dataset is not None
    told = profile.of(folders)
    known = [cast(dict[str, JsonValue], each) for each in cast(list[JsonValue], told.pop("sources", []))]
    listed: list[JsonValue] = [
        {**each, "kind": used.kind if used else None, "licence": used.licence if used else None}
        for each in known
        for used in [sources.get(str(each["source"]))]
    ]
    schema = pq.read_schema(folders.dataset / "train.parquet")
    columns: list[JsonValue] = [
        {"name": field.name, "type": str(field.type), "meaning": COLUMNS.get(field.name, "")} for field in schema
    ]
    actions: Mapping[str, str] = {kind: each for kind, each in task.scrub.actions.items()}
    found = cast(dict[str, int], told.get("personal_data", {}))
    scrub: dict[str, JsonValue] = {kind: actions.get(kind, task.scrub.action) for kind in found}
    return {
        "task": name, "kind": task.kind, "noria": __version__, "schema": columns, "sources": listed, **told,
        "scrub": scrub,
    }  # fmt: skip


def front_matter(card: Mapping[str, Any]) -> str:
    """The YAML that Hugging Face's hub reads."""
    licences = sorted({source["licence"] or "unknown" for source in card["sources"]})
    rows = card["rows"]["train"] + card["rows"]["test"]
    told = {
        "pretty_name": card["task"],
        "language": [code for code in card["languages"] if code != "und"],
        "license": licences[0] if len(licences) == 1 else licences,
        "task_categories": _TASKS.get(card["kind"], []),
        "size_categories": [_size(rows)],
        "tags": ["noria"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": side, "path": f"{side}.parquet"} for side in profile.SIDES],
            }
        ],
        "dataset_info": {
            "features": [{"name": each["name"], "dtype": each["type"]} for each in card["schema"]],
            "splits": [{"name": side, "num_examples": card["rows"][side]} for side in profile.SIDES],
        },
    }
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=120)


def markdown(card: Mapping[str, Any]) -> str:
    """The card for people, with the front matter above it."""
    rows, quarantine = card["rows"], card.get("quarantine", {"rows": 0, "reasons": []})
    parts = [
        f"---\n{front_matter(card)}---\n\n# Data set of the task {card['task']}\n",
        f"{rows['train']} rows to train on and {rows['test']} sealed rows to test on, made by noria {card['noria']}."
        " Nobody but the stage `report` reads the test rows; who trains on them can no longer measure.\n",
        "## Columns\n\n"
        + _table(["column", "type", "meaning"], [[c["name"], c["type"], c["meaning"]] for c in card["schema"]]),
        "## Sources\n\n" + _sources(card),
        "## Steps\n\n"
        + _table(["step", "rows in", "rows out"], [[s["step"], s["in"], s["out"]] for s in card.get("steps", [])]),
        "## Rows\n\n"
        + _table(
            ["", "", "rows"],
            [
                [group, name, count]
                for group in ("origins", "slices", "languages")
                for name, count in card[group].items()
            ],
        ),
        "## Lengths\n\n" + _lengths(card["lengths"]),
        "## Personal data\n\nWhat was found before the rows were written; counted, never kept.\n\n"
        + _table(
            ["kind", "found", "done"],
            [[kind, n, DONE[card["scrub"][kind]]] for kind, n in card.get("personal_data", {}).items()],
        ),
        f"## Left out\n\n{quarantine['rows']} rows of the sources could not be read.\n\n"
        + _table(["source", "reason", "rows"], [[r["source"], r["reason"], r["rows"]] for r in quarantine["reasons"]]),
        "## Made from\n\n" + "".join(f"- `{parent}`\n" for parent in card.get("parents", [])),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def read(folder: Path) -> dict[str, Any]:
    """The card beside the rows of a data set; empty for one that was made without."""
    file = folder / CARD_JSON
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return told


def _sources(card: Mapping[str, Any]) -> str:
    parts = []
    for source in card["sources"]:
        files = source["files"]
        parts.append(
            f"**{source['source']}** ({source['kind'] or 'kind unknown'}, licence {source['licence'] or 'unknown'}): "
            f"{source['documents']} documents kept of {source['collected']} collected, from {len(files)} files.\n\n"
            + _table(
                ["file", "SHA-256", "documents"], [[f["file"], f["sha256"], f["documents"]] for f in files[:FILES]]
            )
            + (f"\nand {len(files) - FILES} more files, listed in {CARD_JSON}\n" if len(files) > FILES else "")
        )
    return "\n".join(parts)


def _lengths(lengths: Mapping[str, Any]) -> str:
    shown = [*profile.QUANTILES, "mean"]
    return _table(
        ["of", "in", *shown],
        [
            [part, unit, *(f"{spread[name]:g}" for name in shown)]
            for part, units in lengths.items()
            for unit, spread in units.items()
        ],
    )


def _table(columns: list[str], rows: list[list[Any]]) -> str:
    if not rows:
        return "None.\n"
    lines = [columns, ["---"] * len(columns), *([_cell(str(each)) for each in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _size(rows: int) -> str:
    """The hub's own names of sizes."""
    bounds = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    place = sum(rows >= size for size in SIZES)
    if place == 0:
        return "n<1K"
    return f"n>{bounds[-1]}" if place == len(SIZES) else f"{bounds[place - 1]}<n<{bounds[place]}"
