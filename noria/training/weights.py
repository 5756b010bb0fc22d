"""What the recipes share that change weights step by step: where they go on, what they learn, how they are recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import JsonValue

from noria import adapters
from noria.errors import Invalid
from noria.settings import WeightRecipe
from noria.stage import Look, Work
from noria.stats.lots import drawn
from noria.training import plan
from noria.training.base import base_of
from noria.types import Artifact, Ref, TrainingJob, digest_of

PAIRED = "dpo"
"""The kind of recipe that learns a data set's preference pairs and none of its features' rows."""
LEAST = 4
"""Fewer rows teach words by heart and nothing else."""


def recipe_of(look: Look | Work) -> WeightRecipe:
    """The task's recipe."""
    assert isinstance(look.task.recipe, WeightRecipe)
    return look.task.recipe


def check(look: Look) -> None:
    """Raise Invalid where the engine could not serve what would be made, or this machine could not make it."""
    base_of(look)
    look.platform.trainer.check(look.platform.model(look.task.base), recipe_of(look))


def observes(look: Look, kind: adapters.Kind) -> JsonValue:
    """The adapter to go on from: the champion's, or the one that it was itself made from by these very features.

    One that learned rows is gone on from where pairs of the same data are learned, and the other way round. None where
    the champion's is not of the kind that the recipe makes.
    """
    if recipe_of(look).start == "base":
        return None
    live = look.platform.deployments.current(look.name)
    adapter = live.champion.adapter if live and live.champion else None
    if live is None or live.champion is None or adapter is None or live.champion.base != base_of(look)[0]:
        return None
    made = look.platform.runs.artifact(adapter)
    if made is None or not look.platform.lake.has(adapter):
        return None
    folder = look.platform.lake.path(adapter)
    if (folder / adapters.FORGOTTEN).exists() or adapters.kind_of(folder) != kind:
        return None
    if look.inputs["features"].ref in made.parents and _paired(made) == (look.task.recipe.kind == PAIRED):
        return made.meta.get("start")
    return str(adapter)


def _paired(made: Artifact) -> bool:
    recipe = made.meta.get("recipe")
    return isinstance(recipe, dict) and recipe.get("kind") == PAIRED


def make(work: Work) -> Mapping[str, JsonValue]:
    """Train on the features; write what serves and its loss curve, log the run where experiments are shown."""
    features = work.folder("features")
    table = pq.read_table(features / "features.parquet", columns=["id", "tokens", "origin"]).to_pylist()
    seen = _seen(work, start_of(work))
    rows = [
        plan.Row(number, row["tokens"], row["id"] not in seen, row["origin"].startswith("traffic"))
        for number, row in enumerate(table)
    ]
    conversations = _conversations(work)
    names = [conversations.get(row["id"], row["id"]) for row in table]
    return learn(work, features, rows, names)


def learn(
    work: Work, features: Path, rows: Sequence[plan.Row], conversations: Sequence[str], *, paired: bool = False
) -> Mapping[str, JsonValue]:
    """Plan, train and record; `conversations` names the one of each row, of which some are kept for validation.

    Where rows are `paired`, each brings the one after it.

    Raises Invalid for too few rows and where there is nothing new to learn.
    """
    recipe, start = recipe_of(work), start_of(work)
    if len(rows) < LEAST:
        raise Invalid(
            f"'{work.name}' has only {len(rows)} row{'s' * (len(rows) != 1)} to learn from, {LEAST} are the least",
            "give it more sources or feedback, or few-shot as its recipe",
        )
    held = held_out(conversations, recipe.validation)
    sides = list(zip(rows, conversations, strict=True))
    steps = plan.batches([row for row, name in sides if name not in held], recipe)
    if not steps:
        raise Invalid(
            f"nothing new to learn: '{work.name}' has seen all its {len(rows)} rows", "feed it feedback or sources"
        )
    measured = [row.number for row, name in sides if name in held]
    job = TrainingJob(
        model=work.platform.model(work.task.base),
        features=features,
        plan=[_both(step) for step in steps] if paired else steps,
        start=work.platform.lake.path(start) if start else None,
        recipe=recipe,
        out=work.out,
        validation=_both(measured) if paired else measured,
        state=_state(work, steps),
    )
    found = work.platform.trainer.train(job, work.progress)
    _track(work, found, len(rows), sum(row.new for row in rows))
    parents: list[JsonValue] = [work.observed] if work.observed else []
    kept = {name: value for name, value in found.items() if name != "curves"}
    return {**kept, "start": work.observed, "parents": parents, "rows": len(rows)}


def _both(numbers: Sequence[int]) -> list[int]:
    return [each for number in numbers for each in (number, number + 1)]


def held_out(conversations: Sequence[str], share: float) -> set[str]:
    """The conversations that are measured and not learned; the same ones from turn to turn.

    Each is drawn by its own name, so new ones change nothing of the old. One at the least, where a share is wanted, and
    never all.
    """
    names = sorted(set(conversations), key=lambda name: drawn("validation", name))
    if share == 0.0 or len(names) < 2:
        return set()
    found = {name for name in names if drawn("validation", name) < share}
    return set(names[: min(max(1, len(found)), len(names) - 1)])


def start_of(work: Work) -> Ref | None:
    """The adapter to go on from, as it was observed."""
    return Ref.parse(str(work.observed)) if work.observed else None


def dataset_of(look: Look | Work) -> Path | None:
    """Folder of the dataset that the features were made from."""
    made = next((ref for ref in look.inputs["features"].parents if ref.kind == "dataset"), None)
    return look.platform.lake.path(made) if made is not None and look.platform.lake.has(made) else None


def pairs_of(look: Look | Work) -> str | None:
    """Digest of the pairs that the recipe learns, which the features do not hold; None for a recipe of rows."""
    folder = dataset_of(look) if look.task.recipe.kind == PAIRED else None
    file = folder / "pairs.parquet" if folder else None
    return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else None


def _conversations(work: Work) -> dict[str, str]:
    folder = dataset_of(work)
    if folder is None or recipe_of(work).validation == 0.0:
        return {}
    table = pq.read_table(folder / "train.parquet", columns=["id", "conversation"])
    return dict(zip(table.column("id").to_pylist(), table.column("conversation").to_pylist(), strict=True))


def _state(work: Work, steps: Sequence[Sequence[int]]) -> Path:
    """Where checkpoints are kept: named by what is trained, so that any later run of the same goes on there."""
    same = [str(work.inputs["features"].ref), work.observed, work.task.base, recipe_of(work).model_dump(mode="json")]
    same += [pairs] if (pairs := pairs_of(work)) else []
    key = digest_of([*same, [list(step) for step in steps]])
    return work.platform.settings.state / "training" / f"{work.name}-{key}"


def _seen(work: Work, start: Ref | None) -> set[str]:
    """Ids of the rows that were learned on the way to this adapter."""
    made = work.platform.runs.artifact(start) if start else None
    seen: set[str] = set()
    while made is not None:
        features = next((ref for ref in made.parents if ref.kind == "features"), None)
        if features is not None and not _paired(made) and work.platform.lake.has(features):
            table = pq.read_table(work.platform.lake.path(features) / "features.parquet", columns=["id"])
            seen.update(table.column("id").to_pylist())
        earlier = made.meta.get("start")
        made = work.platform.runs.artifact(Ref.parse(str(earlier))) if earlier else None
    return seen


def _track(work: Work, measured: Mapping[str, JsonValue], rows: int, new: int) -> None:
    curves = measured.get("curves")
    by_name = {"loss": measured.get("losses"), **(curves if isinstance(curves, dict) else {})}
    told: dict[str, JsonValue] = {
        "task": work.name,
        "cycle": work.cycle,
        "start": work.observed,
        "rows": rows,
        "new_rows": new,
        **{f"recipe.{name}": value for name, value in work.task.recipe.model_dump(mode="json").items()},
        **{name: value for name, value in measured.items() if name not in ("losses", "curves", "validation")},
    }
    validation = measured.get("validation")
    if isinstance(validation, list):
        by_name["validation_loss"] = [pair[1] for pair in validation if isinstance(pair, list)]
    files = [path for name in ("loss.png", "adapter_config.json") if (path := work.out / name).is_file()]
    shown = {name: _numbers(values) for name, values in by_name.items()}
    work.platform.tracking.log(work.name, f"adapter {work.cycle[:8]}", told, shown, files)


def _numbers(values: JsonValue) -> list[float]:
    return [float(str(value)) for value in values] if isinstance(values, list) else []
