"""Recipe `encoder`: a head on an encoder's vectors, fitted anew on all rows, and upper layers tuned where wanted."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from noria import adapters
from noria.errors import Invalid
from noria.settings import EncoderRecipe
from noria.stage import Look, Work
from noria.training.base import base_of
from noria.types import HeadJob


def check(look: Look) -> None:
    """Raise Invalid where the task's engine could not serve a head, or would not read as long a text as it learns."""
    base_of(look)
    settings = look.platform.settings
    context = settings.engines[look.task.engine].context
    if _recipe(look).max_length > context:
        raise Invalid(
            f"recipe of task '{look.name}' takes rows of {_recipe(look).max_length} tokens, its engine "
            f"'{look.task.engine}' texts of {context}",
            f"max_length = {context}",
            where=settings.place("tasks", look.name, "recipe"),
        )


def observes(look: Look) -> JsonValue:
    """Nothing: a head goes on from no other, so that it depends on its rows alone."""
    return None


def make(work: Work) -> Mapping[str, JsonValue]:
    """Train; write the head and its loss curve, log the run where experiments are shown."""
    platform = work.platform
    job = HeadJob(
        model=platform.model(work.task.base),
        features=work.folder("features"),
        recipe=_recipe(work),
        several=work.task.multi_label,
        out=work.out,
    )
    measured = platform.heads.train(job, work.progress)
    adapters.mark(work.out, "head")
    losses = measured.get("losses")
    curve = [float(str(value)) for value in losses] if isinstance(losses, list) else []
    told: dict[str, JsonValue] = {
        "task": work.name,
        "cycle": work.cycle,
        **{f"recipe.{name}": value for name, value in work.task.recipe.model_dump(mode="json").items()},
        **{name: value for name, value in measured.items() if name != "losses"},
    }
    files = [path for name in ("loss.json", "labels.json") if (path := work.out / name).is_file()]
    platform.tracking.log(work.name, f"adapter {work.cycle[:8]}", told, {"loss": curve}, files)
    return measured


def _recipe(look: Look | Work) -> EncoderRecipe:
    assert isinstance(look.task.recipe, EncoderRecipe)
    return look.task.recipe
