"""Recipe `lora`: a low-rank adapter beside the frozen base, going on from the champion's where there is one."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow.parquet as pq
from pydantic import JsonValue

from noria import adapters
from noria.errors import Invalid
from noria.settings import LoraRecipe
from noria.stage import Look, Work
from noria.training import plan
from noria.training.base import base_of
from noria.types import Ref, TrainingJob

FORGOTTEN = "forgotten.json"
"""Marks an adapter that has learned from rows of a person who was to be forgotten: nothing goes on from it."""


def check(look: Look) -> None:
    """Raise Invalid where the task's engine could not serve what would be made."""
    base_of(look)


def observes(look: Look) -> JsonValue:
    """The adapter to go on from: the champion's, or the one that it was itself made from by these very features."""
    if _recipe(look).start == "base":
        return None
    live = look.platform.deployments.current(look.name)
    adapter = live.champion.adapter if live and live.champion else None
    if live is None or live.champion is None or adapter is None or live.champion.base != base_of(look)[0]:
        return None
    made = look.platform.runs.artifact(adapter)
    if made is None or not look.platform.lake.has(adapter):
        return None
    folder = look.platform.lake.path(adapter)
    if adapters.kind_of(folder) != "lora" or (folder / FORGOTTEN).exists():
        return None
    if look.inputs["features"].ref in made.parents:
        return made.meta.get("start")
    return str(adapter)


def make(work: Work) -> Mapping[str, JsonValue]:
    """Train; write the adapter and its loss curve, log the run where experiments are shown."""
    platform, recipe = work.platform, _recipe(work)
    start = Ref.parse(str(work.observed)) if work.observed else None
    features = work.folder("features")
    seen = _seen(work, start)
    rows = [
        plan.Row(number, row["tokens"], row["id"] not in seen, row["origin"].startswith("traffic"))
        for number, row in enumerate(
            pq.read_table(features / "features.parquet", columns=["id", "tokens", "origin"]).to_pylist()
        )
    ]
    steps = plan.batches(rows, recipe)
    if not steps:
        raise Invalid(
            f"nothing new to learn: '{work.name}' has seen all its {len(rows)} rows", "feed it feedback or sources"
        )
    model = platform.model(work.task.base)
    job = TrainingJob(
        model=model,
        features=features,
        plan=steps,
        start=platform.lake.path(start) if start else None,
        recipe=recipe,
        out=work.out,
    )
    measured = platform.trainer.train(job, work.progress)
    _track(work, measured, len(rows), sum(row.new for row in rows))
    parents: list[JsonValue] = [work.observed] if work.observed else []
    return {**measured, "start": work.observed, "parents": parents, "rows": len(rows)}


def _recipe(look: Look | Work) -> LoraRecipe:
    assert isinstance(look.task.recipe, LoraRecipe)
    return look.task.recipe


def _seen(work: Work, start: Ref | None) -> set[str]:
    made = work.platform.runs.artifact(start) if start else None
    seen: set[str] = set()
    while made is not None:
        features = next((ref for ref in made.parents if ref.kind == "features"), None)
        if features is not None and work.platform.lake.has(features):
            table = pq.read_table(work.platform.lake.path(features) / "features.parquet", columns=["id"])
            seen.update(table.column("id").to_pylist())
        earlier = made.meta.get("start")
        made = work.platform.runs.artifact(Ref.parse(str(earlier))) if earlier else None
    return seen


def _track(work: Work, measured: Mapping[str, JsonValue], rows: int, new: int) -> None:
    losses = measured.get("losses", [])
    curve = [float(str(value)) for value in losses] if isinstance(losses, list) else []
    told: dict[str, JsonValue] = {
        "task": work.name,
        "cycle": work.cycle,
        "start": work.observed,
        "rows": rows,
        "new_rows": new,
        **{f"recipe.{name}": value for name, value in work.task.recipe.model_dump(mode="json").items()},
        **{name: value for name, value in measured.items() if name != "losses"},
    }
    files = [path for name in ("loss.png", "adapter_config.json") if (path := work.out / name).is_file()]
    work.platform.tracking.log(work.name, f"adapter {work.cycle[:8]}", told, {"loss": curve}, files)
