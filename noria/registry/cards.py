"""The card of a candidate: what it is for, how it was made, what it can and cannot do. README.md and card.json.

The sections are those of Mitchell et al., "Model Cards for Model Reporting" (2019), the front matter that of a model on
Hugging Face's hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import JsonValue

from noria import replays
from noria.ports import Platform
from noria.registry import bom, candidates, facts
from noria.registry.candidates import Known
from noria.registry.facts import UNKNOWN
from noria.types import Artifact, Run

CARD, CARD_JSON, BOM = "README.md", "card.json", "bom.cdx.json"
LIMITS = (
    "It was measured on the sealed rows of its task alone: what it says of other things was not looked at.",
    "It may repeat what stands in its training rows, and be wrong with great certainty.",
    "What its base has learned, and from what, is told by the base's own card.",
)


def write(platform: Platform, each: Known) -> Artifact:
    """Write a candidate's card and bill of materials into the lake; the ones there, where nothing has changed.

    The ledger keeps them as what the run with the key of this candidate's card made. Facts are gathered, which reads
    every file of an adapter, only where their `facts.state` is another one than at the last time.
    """
    before, state = candidates.carded(platform, each.ref), facts.state(platform, each)
    if before is not None and before.meta.get("state") == state and platform.lake.has(before.ref):
        return before
    told = facts.of(platform, each)
    folder = platform.lake.scratch(f"card-{each.candidate.ref.digest}")
    (folder / CARD).write_text(markdown(told), encoding="utf-8")
    (folder / CARD_JSON).write_text(_json(told), encoding="utf-8")
    (folder / BOM).write_text(_json(bom.of(told)), encoding="utf-8")
    ref = platform.lake.commit(folder, "card", each.candidate.task)
    parents = [each.report.ref] if each.report else []
    parents += [each.candidate.adapter] if each.candidate.adapter else []
    meta: dict[str, JsonValue] = {"candidate": each.ref, "state": state}
    if before is not None:
        meta = {**before.meta, **meta}
    made = Artifact(ref=ref, parents=tuple(parents), run_key=candidates.key(each.ref), meta=meta)
    note(platform, made)
    return made


def note(platform: Platform, card: Artifact) -> None:
    """Record a card, with what its `meta` says now."""
    run = Run(
        key=card.run_key, stage="card", task=card.ref.name, cycle="", output=card.ref, seconds=0.0, peak_mb=0.0,
        at=platform.clock.now(),
    )  # fmt: skip
    platform.runs.record(run, card)


def read(folder: Path) -> dict[str, Any]:
    """A card as it was written."""
    told: dict[str, Any] = json.loads((folder / CARD_JSON).read_text(encoding="utf-8"))
    return told


def front_matter(told: Mapping[str, Any]) -> str:
    """The YAML that the hub reads."""
    data, recipe = told["dataset"] or {}, told["recipe"] or {}
    matter = {
        "license": told["licence"] or "other",
        "base_model": told["base"]["name"],
        "library_name": "peft" if "adapter_config.json" in (told["adapter"] or {}).get("files", {}) else "noria",
        "pipeline_tag": "text-classification" if told["kind"] == "classify" else "text-generation",
        "language": [code for code in data.get("languages", {}) if code != "und"],
        "tags": ["noria", *([recipe["kind"]] if "kind" in recipe else [])],
    }
    return yaml.safe_dump({key: value for key, value in matter.items() if value}, sort_keys=False, allow_unicode=True)


def markdown(told: Mapping[str, Any]) -> str:
    """The card for people."""
    adapter = told["adapter"] or {}
    parts = [
        f"---\n{front_matter(told)}---\n\n# {told['task']}: candidate {told['candidate'].rpartition('@')[2]}\n",
        _intended(told),
        "## How it was made\n\n" + _pairs(_made(told)),
        "## Data\n\n" + _data(told["dataset"]),
        "## Measures\n\n" + _measures(told),
        "## Limits\n\n" + _limits(told),
        "## Licence\n\n" + _licences(told),
        "## Energy\n\n" + _energy(told["training"]),
        "## How to make it again\n\n" + _again(told, adapter),
        "## Files\n\n"
        + _table(
            ["file", "SHA-256", "bytes"],
            [[name, each["sha256"], each["bytes"]] for name, each in adapter.get("files", {}).items()],
        ),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _intended(told: Mapping[str, Any]) -> str:
    system = f" Its system prompt: “{told['system']}”" if told["system"] else ""
    origin = (
        f" It was brought in from `{told['origin']}`; what is told here was measured here." if told["origin"] else ""
    )
    use = f"Answers of the kind `{told['kind']}` for the task `{told['task']}`, behind noria's gateway.{system}{origin}"
    return (
        f"## Intended use\n\n{use}\n\nNot for other tasks, and not for decisions on people without a person who looks:"
        " nobody has measured it there.\n"
    )


def _made(told: Mapping[str, Any]) -> dict[str, Any]:
    recipe = told["recipe"]
    adapter = told["adapter"] or {}
    environment = {key: value for key, value in told["environment"].items() if key != "packages"}
    return {
        "base": told["base"]["ref"], "adapter": f"{adapter['ref']} ({adapter['kind']})" if adapter else "none",
        "recipe": json.dumps(recipe, sort_keys=True) if recipe else UNKNOWN, "features": told["features"],
        "engine": f"{told['engine']} ({told['quantization']})", "prompt": told["prompt"],
        "index of its context": told["index"], "cycle": told["cycle"], "made": told["made"], "noria": told["noria"],
        "environment": ", ".join(f"{key} {value}" for key, value in environment.items()),
        **{f"training: {key}": value for key, value in told["training"].items()},
    }  # fmt: skip


def _data(data: Mapping[str, Any] | None) -> str:
    if data is None:
        return "Not known.\n"
    rows = ", ".join(f"{count} {side}" for side, count in data["rows"].items())
    languages = ", ".join(f"{code} {count}" for code, count in data["languages"].items())
    personal = sum(data.get("personal_data", {}).values())
    return _pairs(
        {
            "data set": data["ref"], "SHA-256 of its card": data["card"], "rows": rows, "languages": languages,
            "personal data found and treated": personal,
        }
    ) + "\n" + _table(
        ["source", "kind", "licence"], [[s["source"], s["kind"] or UNKNOWN, s["licence"]] for s in data["sources"]]
    )  # fmt: skip


def _measures(told: Mapping[str, Any]) -> str:
    if not told["metrics"]:
        return "It has not been measured here.\n"
    rows = [
        [each["slice"], each["metric"], f"{each['value']:.4f}{_bounds(each['bounds'])}", f"{each['champion']:.4f}",
         f"{each['gain']:+.4f} [{_number(each['low'])}, {_number(each['high'])}]", each["rows"]]
        for each in told["metrics"]
    ]  # fmt: skip
    confidence = told["metrics"][0]["confidence"]
    said = f"The gate said **{told['verdict']}**: {told['because']}.\n\n" if told["verdict"] else ""
    checks = "".join(f"\nCheck `{name}`: {value:.1%}.\n" for name, value in told["checks"].items())
    return (
        f"{said}On sealed rows against `{told['champion']}`, with paired intervals at {confidence:.1%}, from"
        f" `{told['report']}`.\n\n"
        + _table(["slice", "metric", "value", "champion", "gain", "rows"], rows) + checks
    )  # fmt: skip


def _limits(told: Mapping[str, Any]) -> str:
    lines = [*LIMITS]
    lost = [f"{each['slice']} ({each['metric']})" for each in told["metrics"] if _certainly_worse(each)]
    if lost:
        lines.append(f"It is certainly worse than the champion of its day on: {', '.join(lost)}.")
    if (told["adapter"] or {}).get("forgotten"):
        lines.append(f"Rows that it learned from were forgotten on {told['adapter']['forgotten']}: replace it.")
    again = replays.read(told["replay"])
    if again is not None and not again.same:
        lines.append(f"It cannot be made again as it is: {again.words()}.")
    return "".join(f"- {line}\n" for line in lines)


def _certainly_worse(each: Mapping[str, Any]) -> bool:
    if each["higher_is_better"]:
        return float(each["high"]) < 0
    return float(each["low"]) > 0


def _licences(told: Mapping[str, Any]) -> str:
    data = told["dataset"] or {"sources": []}
    sources = ", ".join(sorted({each["licence"] for each in data["sources"]})) or UNKNOWN
    return _pairs(
        {"of what was made here": told["licence"] or UNKNOWN, "of the base": told["base"]["licence"],
         "of the data": sources}
    )  # fmt: skip


def _energy(training: Mapping[str, Any]) -> str:
    if training.get("energy_wh") is not None:
        return f"The training took {training['energy_wh']:g} Wh.\n"
    seconds = training.get("seconds")
    return "Not measured" + (f"; the training took {seconds:g} s.\n" if seconds is not None else ".\n")


def _again(told: Mapping[str, Any], adapter: Mapping[str, Any]) -> str:
    again = replays.read(told["replay"])
    found = f"\nDone on {again.at:%Y-%m-%d}: {again.words()}, on {again.machine}.\n" if again is not None else ""
    if told["origin"] or not adapter:
        return "It was not made here.\n"
    return (
        f"    noria replay {told['candidate']}\n\nThis makes the run with the key `{adapter['run_key']}` again from its"
        f" recorded inputs, and compares.\n{found}"
    )


def _bounds(bounds: list[Any] | None) -> str:
    return f" [{_number(bounds[0])}, {_number(bounds[1])}]" if bounds else ""


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4f}"


def _pairs(told: Mapping[str, Any]) -> str:
    return "".join(f"- {name}: `{value}`\n" for name, value in told.items() if value not in (None, ""))


def _table(columns: list[str], rows: list[list[Any]]) -> str:
    if not rows:
        return "None.\n"
    lines = [columns, ["---"] * len(columns), *([_cell(str(each)) for each in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _json(told: Mapping[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=False, indent=1, sort_keys=False) + "\n"
