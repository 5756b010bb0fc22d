"""A candidate that does not serve, behind a gateway of its own."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from trial_fakes import NEW, QUESTION, learned, make, opened

from noria.apps import aside
from noria.errors import Conflict
from noria.types import Ref

pytestmark = pytest.mark.slow


def test_it_answers_under_its_own_name_and_leaves_nothing(tmp_path: Path) -> None:
    platform, _ = opened(make(tmp_path / "shop", "canary = 0.1"))
    candidate = learned(platform, NEW)
    with aside.serving(platform, "helpdesk", candidate) as aimed:
        answer = httpx.post(
            f"{aimed.url}/chat/completions",
            json={"model": aimed.model, "messages": [{"role": "user", "content": QUESTION}]},
            headers={"authorization": f"Bearer {aimed.key}"},
        )
        refused = httpx.get(f"{aimed.url}/models", headers={"authorization": "Bearer somebody"})
    assert answer.json()["choices"][0]["message"]["content"] == NEW
    assert answer.headers["x-noria-served-by"] == str(candidate.ref)
    assert refused.status_code == 401
    assert platform.traffic.read(platform.traffic.mark()) == ([], [])
    with pytest.raises(httpx.ConnectError):
        httpx.get(aimed.url)


def test_one_that_cannot_be_served_is_told_before_anything_starts(tmp_path: Path) -> None:
    platform, _ = opened(make(tmp_path / "shop", "canary = 0.1"))
    gone = Ref(kind="adapter", name="helpdesk", digest="e" * 16)
    candidate = learned(platform, NEW).model_copy(update={"adapter": gone})
    with (
        pytest.raises(Conflict, match="not in the lake any more"),
        aside.serving(platform, "helpdesk", candidate),
    ):
        pass
