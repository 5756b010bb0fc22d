"""What the gateway is told: where engines answer, which arms a route has, who holds a key."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from noria.messages import Wording
from noria.names import Record

Role = Literal["admin", "developer", "user"]


class Endpoint(Record):
    """Where an engine answers OpenAI's API, with bearer token and name of its model; `paths` are not below `url`."""

    url: str
    key: str
    model: str
    paths: tuple[tuple[str, str], ...] = ()


class Arm(Record):
    """One way to answer what is asked of a route: an adapter on an engine, which may run as several replicas.

    `share` is its weight among the route's arms; a shadow is sent a copy of that share of the requests, and its
    answers are logged and thrown away. `extra` is merged into the request body as it is: it is how an engine
    addresses adapters. `index` is the folder of its documents, `vectors` where questions become vectors to
    search it by. `price` is the cost of a million prompt tokens and of a million completion tokens. `wording` stands
    before every question. `asleep`: its engine is started by the first request, which waits. `refusal`: why there is no
    engine now.
    """

    name: str = "champion"
    share: float = 1.0
    shadow: bool = False
    served_by: str
    engine: str
    upstreams: tuple[Endpoint, ...]
    extra: dict[str, JsonValue] = {}
    index: str | None = None
    vectors: Endpoint | None = None
    price: tuple[float, float] = (0.0, 0.0)
    wording: Wording | None = None
    asleep: bool = False
    refusal: str = ""


class Route(Record):
    """What the gateway does with one model name; `task` is its table as JSON, None where requests pass through."""

    arms: tuple[Arm, ...]
    fallbacks: tuple[Arm, ...] = ()
    task: dict[str, JsonValue] | None = None


class KeyGrant(Record):
    """What the gateway knows of a live key. Limits are `settings.LimitSettings` as JSON; no models means all."""

    id: str
    name: str
    role: Role
    models: tuple[str, ...] = ()
    limits: dict[str, JsonValue] = {}


class Snapshot(Record):
    """All that the gateway knows of the ledger and of noria.toml, as one file that is replaced as a whole.

    Keys are by their SHA-256 in hexadecimal; `gateway` is the table [gateway] as JSON (`settings.GatewaySettings`).
    """

    version: int
    routes: dict[str, Route]
    keys: dict[str, KeyGrant]
    gateway: dict[str, JsonValue] = {}
