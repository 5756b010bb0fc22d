"""The tool `get_weather_forecast`: who knows the weather stands behind a protocol; a small sample is shipped."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import date
from importlib.resources import files
from typing import Protocol

from noria.errors import Invalid, NotFound
from noria.tools.worker import load


class Forecasts(Protocol):
    """Who knows the weather."""

    def forecast(self, country: str, city: str, day: date) -> str:
        """The weather in a few words; raises NotFound where it is not known."""


class Sample:
    """Port `Forecasts` from a table that is shipped, made up for tests and examples: it is nobody's real forecast."""

    def __init__(self) -> None:
        text = (files("noria.tools") / "weather.csv").read_text(encoding="utf-8")
        self._known = {
            (row["country"].casefold(), row["city"].casefold(), row["date"]): row["weather"]
            for row in csv.DictReader(text.splitlines())
        }

    def forecast(self, country: str, city: str, day: date) -> str:
        """Raises NotFound for what is not in the table."""
        found = self._known.get((country.casefold().strip(), city.casefold().strip(), day.isoformat()))
        if found is None:
            raise NotFound(f"there is no forecast for {city}, {country}, on {day}")
        return found


def get_weather_forecast(country: str, city: str, date: date) -> str:
    """Weather forecast for a city on a date.

    Args:
        country: full name of the country in English, such as United Kingdom
        city: name of the city
        date: the day, as YYYY-MM-DD
    """
    return Sample().forecast(country, city, date)


def weather(provider: str) -> Callable[[str, str, date], str]:
    """`get_weather_forecast` of another provider: `package.module:name` of what makes a `Forecasts`."""
    source: Forecasts = load(provider)()
    if not callable(getattr(source, "forecast", None)):
        raise Invalid(f"'{provider}' makes nothing that has a method `forecast`", "see noria.tools.weather.Forecasts")

    def get_weather_forecast(country: str, city: str, date: date) -> str:
        return source.forecast(country, city, date)

    get_weather_forecast.__doc__ = globals()["get_weather_forecast"].__doc__
    return get_weather_forecast
