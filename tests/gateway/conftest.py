"""What the tests of files and batches share: an engine, a gateway before it, the official client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from gateway_fakes import KEY, FakeEngine, Plane, fake_engine, running


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with fake_engine() as engine:
        yield engine


@pytest.fixture
def plane(engine: FakeEngine, tmp_path: Path) -> Iterator[Plane]:
    with running(tmp_path / "state", engine.url) as plane:
        yield plane


@pytest.fixture
def client(plane: Plane) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{plane.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client
