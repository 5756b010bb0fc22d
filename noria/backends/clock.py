"""The clock of this machine."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """Port `Clock` on the system's time."""

    def now(self) -> datetime:
        """Present time, aware, in UTC."""
        return datetime.now(UTC)
