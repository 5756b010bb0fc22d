"""Functions in processes: stopped in time, alone with their secrets, and nothing that they print gets in the way."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from noria.errors import Invalid, NoriaError, NotFound
from noria.settings import bare_environment
from noria.tools.process import Functions, Opened

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
NAMES = ("sleeps", "spins", "dies", "prints", "long", "unseen", "raises", "asks")


@pytest.fixture(scope="module")
def functions() -> Iterator[Functions]:
    os.environ["NORIA_TEST_SECRET"] = "hidden"  # noqa: TID251
    opened = [Opened(name, f"tool_functions:{name}") for name in NAMES]
    opened.append(Opened("words", "tool_functions:several", {"words": ["a", "b"]}))
    with Functions(opened, HERE, bare_environment(())) as found:
        yield found
    del os.environ["NORIA_TEST_SECRET"]  # noqa: TID251


def test_options_make_the_functions(functions: Functions) -> None:
    assert [spec.name for spec in functions.specs()] == [*NAMES, "count"]
    assert functions.call("count", {}, 5, 100).text == "2"


@pytest.mark.parametrize("name", ["sleeps", "spins"])
def test_what_takes_too_long_is_stopped_and_the_next_call_is_answered(functions: Functions, name: str) -> None:
    late = functions.call(name, {}, 0.3, 100)
    assert (late.outcome, late.text) == ("late", "it was stopped after 0.3 seconds")
    assert functions.call("count", {}, 5, 100).text == "2"


def test_a_process_that_dies_is_replaced(functions: Functions) -> None:
    assert functions.call("dies", {}, 5, 100).outcome == "failed"
    assert functions.call("count", {}, 5, 100).text == "2"


def test_prints_do_not_break_the_protocol(functions: Functions) -> None:
    for _ in range(2):
        assert functions.call("prints", {}, 5, 100).text == "true"


def test_results_are_cut_and_secrets_unseen(functions: Functions) -> None:
    assert len(functions.call("long", {}, 5, 200).text) == 200
    assert functions.call("unseen", {"name": "NORIA_TEST_SECRET"}, 5, 100).text == "not there"


def test_calls_run_beside_one_another(functions: Functions) -> None:
    with ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(functions.call, "sleeps", {}, 0.5, 100) for _ in range(2)]
        assert pool.submit(functions.call, "count", {}, 5, 100).result().text == "2"
        assert [each.result().outcome for each in slow] == ["late", "late"]


def test_a_named_variable_is_seen_and_a_missing_one_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORIA_TEST_SECRET", "shown")
    assert bare_environment(("NORIA_TEST_SECRET",))["NORIA_TEST_SECRET"] == "shown"
    with pytest.raises(Invalid, match="'NO_SUCH_VARIABLE' is not set"):
        bare_environment(("NO_SUCH_VARIABLE",))


@pytest.mark.parametrize(
    ("target", "kind", "told"),
    [
        ("no_such_tool", NotFound, "there is no tool 'no_such_tool'"),
        ("tool_functions:none", NotFound, "'tool_functions:none' is not there"),
        ("no_such_module:f", NotFound, "No module named 'no_such_module'"),
        ("test_tool_process:HERE", Invalid, "is not a function"),
    ],
)
def test_what_cannot_be_opened_is_told(target: str, kind: type[NoriaError], told: str) -> None:
    with pytest.raises(kind, match=told):
        Functions([Opened("x", target)], HERE, bare_environment(()))


def test_nothing_is_left_after_closing() -> None:
    functions = Functions([Opened("sleeps", "tool_functions:sleeps")], HERE, bare_environment(()))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(functions.call, "sleeps", {}, 60, 100)
        while not functions._live or functions._idle:
            time.sleep(0.01)
        children = [child._process for child in functions._live]
        functions.close()
        assert waiting.result().outcome == "failed"
    assert all(child.poll() is not None for child in children)
    assert functions.call("sleeps", {}, 1, 100).text == "the tools were closed"


def test_a_function_that_reads_standard_input_takes_no_calls_away(functions: Functions) -> None:
    assert functions.call("asks", {}, 5, 100).text == "nothing"
    assert functions.call("count", {}, 5, 100).text == "2"
