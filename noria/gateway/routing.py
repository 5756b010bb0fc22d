"""Which arm of a route answers a request, and which replica of its engine."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from noria.gateway.client import Target, target
from noria.ports import Index
from noria.prompts import Worded
from noria.settings import Action, Detector, RecordSettings, TaskSettings
from noria.types import Arm, Endpoint, Route

if TYPE_CHECKING:
    from noria.gateway.light import Lights

FAILURES = 5
"""Faults in a row after which a replica is left alone."""
OPEN_SECONDS = 2.0
LONGEST_OPEN = 30.0
AFFINITY_CHARS = 1024
"""Prompts whose first characters are the same go to one replica, which may still have them in its cache."""
AFFINITY_SLACK = 4
"""Requests by which that replica may be busier than the least busy one."""


class Breaker:
    """Leaves a failing replica alone for a while, then lets one request try it (the circuit breaker of M. Nygard).

    Only what tells of the replica's health counts: no connection, 5xx, silence. A refused request is an answer.
    """

    __slots__ = ("_clock", "_failures", "_hung", "_opened", "_probing", "_until")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = self._opened = 0
        self._until = 0.0
        self._probing = self._hung = False

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        if not self._opened:
            return "closed"
        return "half-open" if self._probing or self._clock() >= self._until else "open"

    def allows(self, last: bool = False) -> bool:
        """Whether a request may be sent. Once the time is up, exactly one may, until it is known how it went.

        A request for which it is the `last` chance may be sent all the same, unless it would hang.
        """
        if not self._opened or (last and not self._hung):
            return True
        return not self._probing and self._clock() >= self._until

    def sent(self) -> None:
        """A request is on its way."""
        if self._opened:
            self._probing = True

    def succeeded(self) -> None:
        """It was answered, with whatever status below 500."""
        if self._failures or self._opened:
            self._failures = self._opened = 0
            self._probing = False

    def failed(self, hung: bool = False) -> None:
        """It was not answered, or with 5xx; `hung` when that took until a timeout."""
        self._failures += 1
        self._hung = hung
        if self._opened or self._failures >= FAILURES:
            self._opened += 1
            self._probing = False
            self._until = self._clock() + min(LONGEST_OPEN, OPEN_SECONDS * 2 ** min(self._opened - 1, 10))

    def dropped(self) -> None:
        """Its client left, so that nothing was learned of the replica."""
        self._probing = False


class Replica:
    """One server of an engine, shared by all the routes that lead to it."""

    __slots__ = ("_targets", "breaker", "endpoint", "outstanding")

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float]) -> None:
        self.endpoint = endpoint
        self.outstanding = 0
        self.breaker = Breaker(clock)
        self._targets: dict[str, Target] = {}

    def target(self, path: str) -> Target:
        """Where requests for this path go: below the engine's address, or where the engine says that it has it."""
        found = self._targets.get(path)
        if found is None:
            url, key = self.endpoint.url, self.endpoint.key
            elsewhere = dict(self.endpoint.paths).get(path)
            root = url if elsewhere is None else "{0.scheme}://{0.netloc}".format(urlsplit(url))
            found = self._targets[path] = target(root, key, elsewhere or path)
        return found


@dataclass(frozen=True, slots=True)
class LiveArm:
    """An arm ready for use: its replicas, its open index where the task has context, its wording as turns."""

    arm: Arm
    replicas: tuple[Replica, ...]
    index: Index | None
    name: bytes
    """What the header x-noria-served-by says."""
    wording: Worded | None = None

    def cost(self, prompt: int, completion: int) -> float:
        """What so many tokens cost."""
        price = self.arm.price
        return (prompt * price[0] + completion * price[1]) / 1e6


@dataclass(frozen=True, slots=True)
class Live:
    """A route ready for use. `bounds` are the cumulated shares of `arms`, from 0 to 1; `task` None passes through."""

    name: str
    route: Route
    task: TaskSettings | None
    arms: tuple[LiveArm, ...]
    bounds: tuple[float, ...]
    shadows: tuple[LiveArm, ...] = ()
    fallbacks: tuple[LiveArm, ...] = ()
    by_user: bool = True
    """Whether it is users whose requests stay with one arm, and not conversations."""
    inputs: Mapping[Detector, Action] | None = None
    outputs: Mapping[Detector, Action] | None = None
    """What guards look for, where they look at all."""
    record: RecordSettings | None = None
    """What is kept of its traffic, where that is not everything."""
    lights: Lights | None = None

    def choose(self, who: str) -> LiveArm:
        """The arm for a user or a conversation: always the same one as long as the shares stay."""
        if len(self.arms) == 1:
            return self.arms[0]
        place = position(self.name, who)
        for arm, bound in zip(self.arms, self.bounds, strict=True):
            if place < bound:
                return arm
        return self.arms[-1]

    def shadow(self, identity: str) -> LiveArm | None:
        """The shadow that gets a copy of this request, if one does."""
        for number, shadow in enumerate(self.shadows):
            if position(f"{self.name}/{number}", identity) < shadow.arm.share:
                return shadow
        return None


def position(salt: str, who: str) -> float:
    """A number in [0, 1) that is spread evenly over users and always the same for one of them.

    CRC-32, mixed by Fibonacci hashing, whose high bits are even for short keys too.
    """
    return (zlib.crc32(f"{salt}\0{who}".encode()) * 2654435769 & 0xFFFFFFFF) / 2**32


def bounds_of(arms: Sequence[Arm]) -> tuple[float, ...]:
    """Cumulated shares, scaled to end at 1; equal ones where all are zero."""
    shares = [arm.share for arm in arms]
    whole = sum(shares)
    parts = [share / whole for share in shares] if whole else [1 / len(shares)] * len(shares)
    return tuple(sum(parts[: number + 1]) for number in range(len(parts)))


def pick(
    replicas: Sequence[Replica], prefix: Callable[[], str], tried: Collection[Replica], last: bool = False
) -> Replica | None:
    """The replica for the next try: the one with the fewest requests, or the one that has the prompt's beginning.

    None when all of them were tried or are left alone for now; `last` as for `Breaker.allows`.
    """
    if len(replicas) == 1:
        only = replicas[0]
        return only if only not in tried and only.breaker.allows(last) else None
    usable = [each for each in replicas if each not in tried and each.breaker.allows(last)]
    if not usable:
        return None
    least = min(each.outstanding for each in usable)
    beginning = prefix()
    if len(beginning) >= AFFINITY_CHARS:
        # Rendezvous hashing (Thaler and Ravishankar, 1998): a replica that comes or goes moves only its own prompts.
        home = max(usable, key=lambda each: position(each.endpoint.url, beginning[:AFFINITY_CHARS]))
        if home.outstanding <= least + AFFINITY_SLACK:
            return home
    return min(usable, key=lambda each: each.outstanding)


@dataclass(slots=True)
class Replicas:
    """All replicas by address; they outlive snapshots, so that what is known of their health is kept."""

    clock: Callable[[], float]
    known: dict[Endpoint, Replica] = field(default_factory=dict)

    def of(self, arm: Arm) -> tuple[Replica, ...]:
        """The replicas of an arm."""
        return tuple(self._one(endpoint) for endpoint in arm.upstreams)

    def keep(self, used: Collection[Endpoint]) -> None:
        """Forget those that no route leads to any more and that have nothing in flight."""
        self.known = {
            endpoint: replica for endpoint, replica in self.known.items() if endpoint in used or replica.outstanding
        }

    def outstanding(self) -> Mapping[str, int]:
        """Requests in flight by address."""
        # A snapshot may be taken over in another thread meanwhile.
        return {each.endpoint.url: each.outstanding for each in list(self.known.values()) if each.outstanding}

    def breakers(self) -> Mapping[str, str]:
        """State of each replica's breaker by address."""
        return {each.endpoint.url: each.breaker.state for each in list(self.known.values())}

    def _one(self, endpoint: Endpoint) -> Replica:
        found = self.known.get(endpoint)
        if found is None:
            found = self.known[endpoint] = Replica(endpoint, self.clock)
        return found
