"""What stands beside a question: documents by words or by meaning, in training and when served alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from noria import prompts
from noria.errors import Invalid, Unavailable
from noria.ports import Embed, Hit, Index, Meant, Platform
from noria.settings import ContextSettings
from noria.types import Endpoint

if TYPE_CHECKING:
    import httpx

# The gateway, which does not load httpx, takes from here how vectors are asked for.

PATH = "/embeddings"
BATCH = 64
"""Texts of one request."""
SECONDS = 120.0


class Retriever:
    """Finds the context of questions in an index; vectors of questions are asked for in batches, once each."""

    def __init__(self, index: Index, context: ContextSettings, limit: int, embed: Embed | None) -> None:
        self._index, self._context, self._limit, self._embed = index, context, limit, embed
        self._known: dict[str, list[float]] = {}

    def ready(self, questions: Sequence[str]) -> None:
        """Get the vectors of many questions before they are asked one by one."""
        if self._embed is not None:
            fresh = [each for each in dict.fromkeys(questions) if each not in self._known]
            self._known.update(zip(fresh, self._embed(fresh), strict=True))

    def retrieve(self, question: str, k: int) -> list[Hit]:
        """At most `k` documents, nearest first."""
        self.ready([question])
        found = self._known.get(question)
        meant = Meant(found, self._context.by, self._context.rerank) if found is not None else None
        return self._index.search(question, k, meant)

    def context(self, question: str) -> str | None:
        """What is put beside the question; None where nothing is near."""
        return prompts.beside(self.retrieve(question, self._context.k), self._limit)[0]


@contextmanager
def embedding(platform: Platform, context: ContextSettings | None) -> Iterator[Embed | None]:
    """What makes vectors of texts for a task's context, while the block lasts; None where words decide alone.

    Raises Invalid or Unavailable.
    """
    if context is None or not context.vectors or context.engine is None:
        yield None
        return
    with vectors_by(platform, context.engine) as embed:
        yield embed


@contextmanager
def vectors_by(platform: Platform, name: str) -> Iterator[Embed]:
    """What makes vectors of texts with the engine of this name, while the block lasts.

    The engine is started, or asked where it already runs. Raises Invalid or Unavailable, as does what is yielded.
    """
    import httpx

    settings = platform.settings.engines[name]
    logs = platform.settings.state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    engine = platform.engines[settings.kind].start(settings, {}, logs / f"context-engine-{name}.log")
    try:
        with httpx.Client(timeout=SECONDS) as client:
            yield lambda texts: _asked(client, engine.endpoint, name, texts)
    finally:
        engine.close()


def request(model: str, texts: Sequence[str]) -> dict[str, Any]:
    """The body of a request for vectors, in OpenAI's form."""
    return {"model": model, "input": list(texts), "encoding_format": "float"}


def vectors_of(reply: Any, count: int, engine: str) -> list[list[float]]:
    """The vectors in an answer, in the order of the texts, of unit length; raises Unavailable for nonsense."""
    try:
        found = sorted((int(each["index"]), each["embedding"]) for each in reply["data"])
        made = [[float(value) for value in vector] for _, vector in found]
    except (KeyError, TypeError, ValueError) as error:
        raise _nonsense(engine) from error
    if [place for place, _ in found] != list(range(count)):
        raise _nonsense(engine)
    return [_unit(vector, engine) for vector in made]


def _asked(client: httpx.Client, endpoint: Endpoint, engine: str, texts: Sequence[str]) -> list[list[float]]:
    import httpx

    paths: Mapping[str, str] = dict(endpoint.paths)
    url = f"{endpoint.url}{PATH}" if PATH not in paths else str(httpx.URL(endpoint.url).join(paths[PATH]))
    made: list[list[float]] = []
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        try:
            reply = client.post(
                url, json=request(endpoint.model, part), headers={"authorization": f"Bearer {endpoint.key}"}
            )
        except httpx.TransportError as error:
            raise Unavailable(f"engine '{engine}' does not make vectors: {error}", "start it again") from error
        if reply.status_code >= 500 or reply.status_code == 429:
            raise Unavailable(
                f"engine '{engine}' does not make vectors now (status {reply.status_code})",
                "look at it, then try again",
            )
        if reply.status_code != 200:
            raise Invalid(
                f"engine '{engine}' refuses to make vectors (status {reply.status_code})",
                "name an engine with an encoder",
            )
        try:
            told = reply.json()
        except ValueError as error:
            raise _nonsense(engine) from error
        made += vectors_of(told, len(part), engine)
    return made


def _unit(vector: Sequence[float], engine: str) -> list[float]:
    length = math.sqrt(math.fsum(value * value for value in vector))
    if not math.isfinite(length) or not length:
        raise _nonsense(engine)
    return [value / length for value in vector]


def _nonsense(engine: str) -> Unavailable:
    return Unavailable(f"engine '{engine}' answers no vectors", "name an engine with an encoder")
