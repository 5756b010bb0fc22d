"""Benchmarks that were run: files of their own in the project's state, listed, shown, compared and removed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from noria.errors import Invalid, NotFound
from noria.evaluation import speed
from noria.settings import known

COLUMNS: Final = (
    "engine", "precision", "scenario", "at once", "requests", "total s", "mean s", "TTFT ms", "ms/token", "tok/s",
    "spread", "req/s", "weights GiB", "KV GiB", "peak GiB", "J/tok", "agreement", "KL", "alike", "invalid", "",
)  # fmt: skip
_ID: Final = re.compile(r"[0-9a-f]{1,32}")


def save(told: Mapping[str, Any], folder: Path) -> Path:
    """Write a run as `ID.json` into the folder."""
    return write(told, folder / f"{told['id']}.json")


def write(told: Mapping[str, Any], file: Path) -> Path:
    """Write a run in one step; folders above it are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)
    return file


def listed(folder: Path) -> list[dict[str, Any]]:
    """All runs, the oldest first, without their rows."""
    found = sorted((_read(each) for each in folder.glob("*.json")), key=lambda each: str(each["at"]))
    return [
        {
            "id": each["id"],
            "at": each["at"],
            "engines": sorted({f"{row['engine']} {row['precision']}" for row in each["rows"]}),
            "scenarios": sorted({row["scenario"] for row in each["rows"]}),
            "rows": len(each["rows"]),
            "void": sum(row["void"] for row in each["rows"]),
        }
        for each in found
    ]


def load(text: str, folder: Path) -> dict[str, Any]:
    """The run of this id (its first letters are enough), of a file, or `latest`; raises NotFound, Invalid."""
    if text.endswith(".json"):
        if not Path(text).is_file():
            raise NotFound(f"there is no file '{text}'", "noria bench list")
        return _read(Path(text))
    return _read(_find(text, folder))


def remove(text: str, folder: Path) -> str:
    """Remove a run; returns its id. Raises NotFound, Invalid."""
    file = _find(text, folder)
    file.unlink()
    return file.stem


def compared(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Rows that both runs have, with ratios; raises Invalid where there are none."""
    rows = speed.compare(one["rows"], other["rows"])
    if not rows:
        raise Invalid(
            f"runs '{one['id']}' and '{other['id']}' have no row in common",
            "rows are the same by engine, precision, scenario and concurrency",
        )
    notes = []
    if one["machine"] != other["machine"]:
        notes.append("the runs are of two machines")
    if one["decoding"] != other["decoding"]:
        notes.append("the runs decoded in two ways")
    return {"before": one["id"], "after": other["id"], "rows": rows, "notes": notes}


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row as a person reads it."""
    marks = ["void"] if row["void"] else ["fastest"] if row.get("fastest") else []
    if row["expected"]:
        marks.append(f"right {row['right']}/{row['expected']}")
    answers = row["requests"] * row["rounds"]
    faults = " ".join(f"{name} {count}" for name, count in row["faults"].items())
    spread = _number(row["tokens_per_s_low"], 1), _number(row["tokens_per_s_high"], 1)
    return [
        row["engine"], row["precision"], row["scenario"], str(row["concurrency"]), str(row["requests"]),
        _number(row["total_s"], 2), _number(row["mean_s"], 3), _number(row["ttft_ms"], 0), _number(row["itl_ms"], 1),
        _number(row["tokens_per_s"], 1), "" if row["void"] else f"{spread[0]}–{spread[1]}",
        _number(row["requests_per_s"], 2), _number(row["weights_gib"], 3), _number(row["kv_gib"], 3),
        _number(row["peak_gib"], 2), _number(row["joules_per_token"], 2),
        "" if row["agreement"] is None else f"{row['agreement']:.1%}", _number(row["kl"], 4),
        "" if row["likeness"] is None else f"{row['likeness']:.0%}",
        f"{row['invalid']}/{answers} {faults}".strip(), ", ".join(marks),
    ]  # fmt: skip


def markdown(told: Mapping[str, Any]) -> str:
    """The rows as a table for a page, without columns that no row fills."""
    rows = [cells(row) for row in told["rows"]]
    kept = [number for number in range(len(COLUMNS)) if any(row[number] for row in rows)]
    lines = [[COLUMNS[number] for number in kept], ["---"] * len(kept)]
    lines += [[row[number] for number in kept] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _find(text: str, folder: Path) -> Path:
    files = sorted(folder.glob("*.json"))
    if text == "latest" and files:
        return max(files, key=lambda file: str(_read(file)["at"]))
    found = [file for file in files if file.stem.startswith(text)] if _ID.fullmatch(text) else []
    if len(found) > 1:
        raise Invalid(f"'{text}' is the beginning of {len(found)} runs", "give more of it: noria bench list")
    if not found:
        raise NotFound(
            f"there is no run '{text}'", known(text, [file.stem for file in files]) if files else "noria bench"
        )
    return found[0]


def _read(file: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {**told, "rows": [*told["rows"]], "id": str(told["id"]), "at": str(told["at"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(f"'{file.name}' is no run of noria bench", "remove it, and measure again") from error
