"""A way into the traffic log for processes beside the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from noria.errors import Unavailable
from noria.ports import Platform, Recorder
from noria.traffic.segments import SegmentWriter


@contextmanager
def recorder(platform: Platform) -> Iterator[Recorder]:
    """A segment of its own, which is shipped like those of the gateway; raises Unavailable where the disk refuses."""
    try:
        with SegmentWriter(platform.settings.state / "segments") as writer:
            yield writer
    except OSError as error:
        raise Unavailable(
            f"it could not be logged ({error.strerror or error})", "try again later; the disk may be full"
        ) from error
