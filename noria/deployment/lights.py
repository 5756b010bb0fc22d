"""What the calibration of the lights has found, on its way to the gateway."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from noria.ports import Platform
from noria.settings import TaskSettings
from noria.stats import trust


def thresholds(platform: Platform) -> dict[str, JsonValue]:
    """Thresholds of each task by what serves; those found for other shares than the settings have now are void."""
    found = {
        name: platform.runs.find(trust.key(name, task.lights))
        for name, task in platform.settings.tasks.items()
        if task.lights is not None
    }
    return {name: made.meta["thresholds"] for name, made in found.items() if made is not None}


def told(task: TaskSettings, known: JsonValue) -> dict[str, JsonValue]:
    """A task's table as the gateway is given it, with the thresholds of its lights where there are any."""
    table: dict[str, JsonValue] = task.model_dump(mode="json")
    lights = table["lights"]
    if isinstance(lights, Mapping) and known is not None:
        table["lights"] = {**lights, "thresholds": known}
    return table
