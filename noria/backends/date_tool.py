"""The tool `get_current_date`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from noria.backends.clock import SystemClock
from noria.errors import Invalid


def get_current_date() -> str:
    """Today's date, as YYYY-MM-DD."""
    return SystemClock().now().astimezone().date().isoformat()


def calendar(zone: str = "", fixed: str = "") -> Callable[[], str]:
    """`get_current_date` in a time zone, such as Europe/London, or of one fixed day. Raises Invalid."""
    try:
        day = date.fromisoformat(fixed) if fixed else None
        place = ZoneInfo(zone) if zone else UTC
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise Invalid(f"get_current_date: {error}", 'such as zone = "Europe/London" or fixed = "2026-01-21"') from error

    def get_current_date() -> str:
        """Today's date, as YYYY-MM-DD."""
        return (day or SystemClock().now().astimezone(place).date()).isoformat()

    return get_current_date
