"""The client that measures: what it counts, what it takes for an error, how many requests it sends at once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from scripted_chat import Mode, scripted

from noria.backends.load_client import LoadClient
from noria.backends.process_meter import ProcessMeter
from noria.routes import Endpoint

ASK = [{"role": "user", "content": "Tell me."}]


def client(url: str) -> LoadClient:
    return LoadClient(Endpoint(url=url, key="none", model="scripted"))


def test_tokens_are_those_of_the_usage_and_not_the_chunks() -> None:
    with scripted() as server:
        reply = client(server.url).ask(ASK, 12)
    assert (reply.tokens, reply.prompt_tokens, reply.cached, reply.finish) == (12, 7, 3, "length")
    assert len(reply.text.split()) == 12
    assert reply.first is not None
    assert 0 < reply.first <= reply.seconds


def test_decoding_is_greedy_with_a_fixed_seed_and_more_fields_as_told() -> None:
    with scripted() as server:
        one = client(server.url)
        one.use({"cache_prompt": False})
        one.ask(ASK, 5, {"ignore_eos": True})
        (body,) = server.bodies
    told = {name: body[name] for name in ("temperature", "seed", "max_tokens", "cache_prompt", "ignore_eos", "stream")}
    assert told == {
        "temperature": 0, "seed": 0, "max_tokens": 5, "cache_prompt": False, "ignore_eos": True, "stream": True
    }  # fmt: skip


@pytest.mark.parametrize(("mode", "said"), [("broken", "out of memory"), ("refusing", "HTTP 500")])
def test_what_an_engine_complains_of_is_kept(mode: Mode, said: str) -> None:
    with scripted(mode) as server:
        assert said in client(server.url).ask(ASK, 12).error


def test_nobody_there_is_an_error_of_the_answer() -> None:
    with scripted() as server:
        url = server.url
    assert "ConnectError" in client(url).ask(ASK, 4).error


def test_so_many_are_sent_at_once_and_answers_keep_their_order() -> None:
    with scripted() as server:
        replies, seconds = client(server.url).all([ASK] * 9, 6, 3)
        assert server.most <= 3
    assert [reply.tokens for reply in replies] == [6] * 9
    assert seconds >= max(reply.seconds for reply in replies)


def test_vectors_of_zeros_are_none() -> None:
    with scripted("vectors") as server:
        one = client(server.url)
        (good,), _ = one.all([("a", "b")], 0, 1)
        server.mode = "zeros"
        bad = one.embed(["a", "b"])
    assert (good.vectors, good.prompt_tokens, bad.vectors) == (2, 10, 0)


def test_a_meter_sees_the_memory_and_time_of_a_whole_tree() -> None:
    child = "import time\nheld = bytearray(60 << 20)\ntime.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        with ProcessMeter([process.pid]) as meter:
            deadline = 200
            while (meter.peak or 0) < 60 << 20 and deadline:
                deadline -= 1
                process.poll()
                subprocess.run(["sleep", "0.1"], check=True)
        assert meter.peak is not None
        assert meter.peak >= 60 << 20
        assert meter.cpu is not None
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_of_a_server_elsewhere_nothing_is_known() -> None:
    with ProcessMeter([]) as meter:
        pass
    assert (meter.peak, meter.cpu) == (None, None)
