"""Documents that mean the same: who is dropped for whom, and how many are missed."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import numpy as np
import pytest

from noria import retrieval
from noria.datasets import semantic
from noria.errors import Invalid, Unavailable
from noria.types import Endpoint

NO_KEYS = np.zeros(100_000, np.int64)


def unit(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def turned(vectors: np.ndarray, cosine: float, random: np.random.Generator) -> np.ndarray:
    """Vectors of this cosine to those given."""
    other = random.standard_normal(vectors.shape)
    other -= (other * vectors).sum(axis=1, keepdims=True) * vectors
    return unit(cosine * vectors + np.sqrt(1 - cosine**2) * unit(other))


def test_each_is_dropped_for_one_before_it_that_stays() -> None:
    angles = np.radians([0, 10, 20, 30, 90, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    # 10 goes for 0. 20 is near to 10 only, which is gone: it stays, and 30 goes for it.
    assert semantic.losers(vectors, NO_KEYS[:6], np.cos(np.radians(12))) == [1, 3, 5]
    # 20 is near to 10, which goes, and then to 30, which stays.
    angles = np.radians([0, 10, 30, 20])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert semantic.losers(vectors, NO_KEYS[:4], np.cos(np.radians(12))) == [1, 3]
    # Whatever stands before, a group keeps one.
    assert semantic.losers(np.repeat(vectors[:1], 3000, axis=0), NO_KEYS[:3000], 0.95) == list(range(1, 3000))


def test_other_keys_are_never_alike() -> None:
    vectors = np.repeat(unit(np.ones((1, 8))), 4, axis=0)
    assert semantic.losers(vectors, np.array([7, 8, 7, 8]), 0.95) == [2, 3]
    assert semantic._key("faq", "code E10 means") == semantic._key("faq", "what E10 stands for")
    assert semantic._key("faq", "code E10 means") != semantic._key("faq", "code E11 means")
    assert semantic._key("faq", "no number") != semantic._key("pages", "no number")


def test_of_planted_ones_nearly_all_are_found_and_nothing_else() -> None:
    random = np.random.default_rng(3)
    fresh = unit(random.standard_normal((2000, 64)))
    copies = turned(fresh[:500], 0.96, random)
    far = turned(fresh[500:1000], 0.94, random)
    lost = semantic.losers(np.concatenate([fresh, far, copies]), NO_KEYS[:3000], 0.95)
    assert set(lost) <= set(range(2500, 3000))
    assert len(lost) >= 0.996 * 500


def test_at_a_similarity_of_one_copies_go_and_nothing_else() -> None:
    fresh = unit(np.random.default_rng(5).standard_normal((300, 384)))
    assert semantic.losers(np.concatenate([fresh, fresh]), NO_KEYS[:600], 1.0) == list(range(300, 600))


def test_texts_that_the_engine_refuses_have_no_vector() -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        if any("long" in text for text in texts):
            raise Invalid("too many tokens")
        return [[1.0, 0.0] for _ in texts]

    said = ["a", "b", "long", "c", "long", "d", "e"]
    made = semantic._made(said, embed, strict=True)
    assert [vector is None for vector in made] == ["long" in text for text in said]
    with pytest.raises(Invalid, match="too many tokens"):
        semantic._made(["long"] * 3, embed, strict=True)
    assert semantic._made(["long"] * 3, embed, strict=False) == [None] * 3


@pytest.mark.parametrize(("status", "fault"), [(400, Invalid), (429, Unavailable), (503, Unavailable)])
def test_an_engine_that_is_busy_has_refused_no_text(status: int, fault: type[Exception]) -> None:
    endpoint = Endpoint(url="http://engine/v1", key="k", model="m", paths=())
    transport = httpx.MockTransport(lambda request: httpx.Response(status))
    with httpx.Client(transport=transport) as client, pytest.raises(fault):
        retrieval._asked(client, endpoint, "encoder", ["a"])
