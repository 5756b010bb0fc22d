"""How many requests each upstream is working on: what a release waits for before it stops an engine."""

from __future__ import annotations

from collections.abc import Mapping


class Inflight:
    """Counts requests by the URL of their upstream; a request is at one upstream at a time."""

    def __init__(self) -> None:
        self._at: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def enter(self, request: str, url: str) -> None:
        """The request goes to this upstream."""
        self.leave(request)
        self._at[request] = url
        self._counts[url] = self._counts.get(url, 0) + 1

    def leave(self, request: str) -> None:
        """The request is nowhere any more; a second call does nothing."""
        url = self._at.pop(request, None)
        if url is None:
            return
        self._counts[url] -= 1
        if not self._counts[url]:
            del self._counts[url]

    def counts(self) -> Mapping[str, int]:
        """Requests in flight by URL; upstreams without any are not in it."""
        return dict(self._counts)
