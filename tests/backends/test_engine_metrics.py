"""Each make's own metrics as one record: samples of their text, named as docs/engines.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from noria.backends.engine_metrics import NAMES, read
from noria.errors import Invalid
from noria.types import Load

SAMPLES = Path(__file__).parent / "engine_metrics"
EXPECTED = {
    "vllm": Load(2.0, 3.0, 0.25, 0.02, 0.125, 400.0, 90.0),
    "aphrodite": Load(2.0, 3.0, 0.25, 0.02, 0.125, 400.0, 90.0),
    "sglang": Load(5.0, 4.0, 0.5, 0.03, 0.75, 1000.0, 300.0),
    "lmdeploy": Load(7.0, 6.0, 0.4),
    "tgi": Load(1.0, 2.0, None, 0.015),
    "llamacpp": Load(1.0, 4.0, None, 0.01, None, 250.0, 200.0),
}


@pytest.mark.parametrize("make", EXPECTED)
def test_names_of_each_make_are_mapped_onto_ours(make: str) -> None:
    assert read((SAMPLES / f"{make}.txt").read_text(), NAMES[make]) == EXPECTED[make]


def test_requests_of_several_models_are_added_up_and_the_fullest_cache_counts() -> None:
    text = 'vllm:num_requests_running{model="a"} 1\nvllm:num_requests_running{model="b"} 2\n'
    text += 'vllm:kv_cache_usage_perc{engine="0"} 0.1\nvllm:kv_cache_usage_perc{engine="1"} 0.9\n'
    assert read(text, NAMES["vllm"]) == Load(running=3.0, cache=0.9)


def test_an_engine_that_has_answered_nothing_has_no_means() -> None:
    text = "vllm:time_to_first_token_seconds_sum 0\nvllm:time_to_first_token_seconds_count 0\n"
    assert read(text, NAMES["vllm"]) == Load()
    assert read("", NAMES["tgi"]) == Load()


def test_what_is_no_metrics_is_refused() -> None:
    with pytest.raises(Invalid, match="no metrics"):
        read("<html><body>Not found</body></html>", NAMES["vllm"])
