"""Context by meaning: found by vectors beside what words find, served with its sources, refused without its encoder."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from encoding_server import EncodingServer, encoding_server, vector
from gateway_fakes import FakeEngine, Plane, asking, running, wait_for
from hypothesis import given
from hypothesis import strategies as st

from noria import prompts
from noria.backends.fts import Indexes
from noria.backends.vectors import MeaningIndex, fused
from noria.errors import Invalid, Unavailable
from noria.ports import Hit, Meant
from noria.retrieval import Retriever, vectors_of
from noria.settings import ContextSettings
from noria.types import Document, Endpoint, digest_of

BY_MEANING = ContextSettings(source="faq", by="meaning", engine="encoder")


def document(heading: str, body: str) -> Document:
    return Document(
        id=digest_of([heading, body]), source="faq", text=f"{heading}\n{body}",
        fields={"heading": heading, "body": body}, conversation="", file="faq.html", offset=0, digest="0" * 64,
    )  # fmt: skip


FAQ = [
    document("Passwords", "Use the link for a new password."),
    document("Orders", "Track the order under My account."),
    document("Opening hours", "We open at nine."),
]


def unit(text: str) -> list[float]:
    found = np.asarray(vector(text))
    return list(map(float, found / np.linalg.norm(found)))


def embed(texts: object) -> list[list[float]]:
    assert isinstance(texts, list)
    return [unit(text) for text in texts]


@pytest.fixture
def index(tmp_path: Path) -> MeaningIndex:
    Indexes().build(FAQ, tmp_path / "index", embed)
    found = Indexes().open(tmp_path / "index")
    assert isinstance(found, MeaningIndex)
    return found


@pytest.fixture
def encoder() -> Iterator[EncodingServer]:
    with encoding_server() as server:
        yield server


@pytest.fixture
def meaning(engine: FakeEngine, encoder: EncodingServer, index: MeaningIndex, tmp_path: Path) -> Iterator[Plane]:
    index.close()
    with running(tmp_path / "state", engine.url, tmp_path / "index") as plane:
        plane.context = BY_MEANING
        plane.vectors = Endpoint(url=encoder.url, key="k", model="encoder")
        plane.publish(engine.url)
        yield plane


def test_meaning_finds_what_shares_no_word(index: MeaningIndex) -> None:
    question = "Forgot login"
    assert index.search(question, 1) == []
    assert index.search(question, 1, Meant(unit(question))) == [Hit("Use the link for a new password.", FAQ[0].id)]
    assert index.search("xyzzy plugh", 3, Meant(unit("xyzzy plugh"))) == []
    assert index.search(question, 0, Meant(unit(question))) == []


def test_both_orders_count_where_it_is_asked(index: MeaningIndex) -> None:
    question = "When is my parcel here: open account?"
    by_meaning = index.search(question, 3, Meant(unit(question), "meaning", rerank=True))
    by_words = index.search(question, 3, Meant(unit(question), "words", rerank=True))
    assert {hit.document for hit in by_words} <= {hit.document for hit in index.search(question, 12)}
    assert by_meaning[0].document == by_words[0].document == FAQ[1].id


def test_a_vector_of_another_model_is_refused(index: MeaningIndex) -> None:
    with pytest.raises(Invalid, match=f"has 3 numbers, those of the index {len(unit('x'))}"):
        index.search("order", 1, Meant([1.0, 0.0, 0.0]))


@given(st.permutations(range(8)), st.permutations(range(8)), st.integers(0, 8))
def test_fusion_keeps_the_first_list_and_agrees_with_agreement(first: list[int], second: list[int], cut: int) -> None:
    made = fused(first, second[:cut])
    assert sorted(made) == sorted(first)
    assert fused(first, first) == first
    if cut == 0:
        assert made == first


def test_the_context_names_its_documents_as_far_as_they_are_in_it() -> None:
    hits = [Hit("One sentence. Another one.", "a"), Hit("More.", "b")]
    assert prompts.beside([], 100) == (None, ())
    assert prompts.beside(hits, 100) == ("One sentence. Another one.\nMore.", ("a", "b"))
    assert prompts.beside(hits, 20) == ("One sentence.", ("a",))


def test_questions_are_asked_once_and_together(index: MeaningIndex) -> None:
    asked: list[int] = []

    def counted(texts: object) -> list[list[float]]:
        asked.append(len(list(texts)))  # type: ignore[call-overload]
        return embed(list(texts))  # type: ignore[call-overload]

    retriever = Retriever(index, BY_MEANING, 600, counted)
    retriever.ready(["I forgot my login", "Where is my shipment?", "I forgot my login"])
    assert retriever.context("I forgot my login") == "Use the link for a new password."
    assert retriever.context("Where is my shipment?") == "Track the order under My account."
    assert [count for count in asked if count] == [2]


@pytest.mark.parametrize(
    "reply",
    [None, {}, {"data": 1}, {"data": []}, {"data": [{"index": 1, "embedding": [1.0]}]},
     {"data": [{"index": 0, "embedding": "x"}]}, {"data": [{"index": 0, "embedding": [0.0, 0.0]}]}],
)  # fmt: skip
def test_nonsense_is_no_vector(reply: object) -> None:
    with pytest.raises(Unavailable, match="answers no vectors"):
        vectors_of(reply, 1, "encoder")


def test_an_answer_comes_with_context_by_meaning_and_its_sources(
    meaning: Plane, engine: FakeEngine, encoder: EncodingServer
) -> None:
    with meaning.client() as client:
        reply = wait_for(lambda: _with(client.post("/v1/chat/completions", json=asking("I forgot my login")), engine))
    told = meaning.recorded(str(reply))
    assert told.context == "Use the link for a new password."
    assert told.sources == (FAQ[0].id,)
    assert encoder.asked[-1] == ["I forgot my login"]


def _with(reply: object, engine: FakeEngine) -> str | None:
    """The answer's id, once the new snapshot is in use."""
    import httpx

    assert isinstance(reply, httpx.Response)
    if "[Context] Use the link" not in engine.bodies[-1]["messages"][-1]["content"]:
        return None
    return reply.headers["x-noria-interaction"]


@pytest.mark.parametrize("how", ["busy", "nonsense"])
def test_without_its_encoder_a_task_does_not_answer(
    meaning: Plane, engine: FakeEngine, encoder: EncodingServer, how: str
) -> None:
    encoder.broken = how
    with meaning.client() as client:
        reply = wait_for(lambda: _refused(client.post("/v1/chat/completions", json=asking("order"))))
        assert "encoder" in reply["error"]["message"]
        encoder.broken = ""
        assert client.post("/v1/chat/completions", json=asking("order")).status_code == 200


def test_while_its_encoder_is_not_loaded_a_task_does_not_answer_without_context(
    meaning: Plane, engine: FakeEngine
) -> None:
    meaning.vectors = None
    meaning.publish(engine.url)
    with meaning.client() as client:
        reply = wait_for(lambda: _refused(client.post("/v1/chat/completions", json=asking("order"))))
    assert "engine 'encoder', which finds the context, is not answering" in reply["error"]["message"]


def _refused(reply: object) -> dict[str, dict[str, str]] | None:
    import httpx

    assert isinstance(reply, httpx.Response)
    return reply.json() if reply.status_code == 503 else None


def test_the_gateway_loads_no_client_library() -> None:
    script = "import noria.apps.gateway, sys; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"httpx", "torch", "feast"}.isdisjoint(ast.literal_eval(done.stdout))
