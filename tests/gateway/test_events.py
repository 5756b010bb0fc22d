"""A stream on its way through, however the network cuts it."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from noria.gateway.answers import Heard
from noria.gateway.events import DONE, AnswerStream


def event(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    chunk = {"model": "helpdesk", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


USAGE = b'data: {"model": "helpdesk", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
WHOLE = [
    event({"role": "assistant", "content": ""}),
    b": still here\n\n",
    event({"content": " "}),
    event({"content": "  Grüße,"}),
    event({"content": " Welt "}),
    event({}, "stop"),
    USAGE,
    b"data: [DONE]\n\n",
]


def fed(data: bytes, cuts: list[int], usage: bool = False) -> tuple[AnswerStream, bytes]:
    stream = AnswerStream(Heard(), "helpdesk", usage)
    out = b""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        out += stream.feed(data[start:end])
    return stream, out


@given(st.lists(st.integers(0, 2000), max_size=12), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_cuts_and_line_ends_change_nothing(cuts: list[int], end: bytes, usage: bool) -> None:
    data = b"".join(WHOLE).replace(b"\n", end)
    stream, out = fed(data, cuts, usage)
    texts = [
        json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in out.splitlines() if b"{" in line
    ]
    assert "".join(texts) == stream.heard.answer == "Grüße, Welt "
    assert out.startswith(WHOLE[0] + WHOLE[1])
    assert out.endswith(WHOLE[4])
    assert stream.tail() == WHOLE[5] + (USAGE if usage else b"") + DONE
    assert (stream.heard.finish_reason, stream.heard.prompt_tokens, stream.heard.completion_tokens) == ("stop", 3, 2)
    assert stream.done
    assert stream.complete


TEXTS = st.text() | st.sampled_from(['"', "\\", "\n", ' "content":"x"', '"model":"m"', "ü", "a", "\\u0022"])


@given(st.lists(TEXTS, max_size=12), st.booleans(), st.sampled_from(["m", "helpdesk"]), st.integers(0, 1))
def test_every_text_arrives_under_the_name_that_the_client_knows(
    texts: list[str], compact: bool, model: str, logprobs: int
) -> None:
    stream, out = AnswerStream(Heard(), "helpdesk", False, strip=False), b""
    for number, text in enumerate(texts):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, "logprobs": None}
        # Something beside the text changes from time to time.
        chunk = {"id": f"c{number // 3}", "model": model, "created": number // 2 * logprobs, "choices": [choice]}
        data = json.dumps(chunk, ensure_ascii=compact, separators=(",", ":") if compact else None)
        out += stream.feed(b"data: %b\n\n" % data.encode(errors="surrogatepass"))
    passed = [json.loads(line[6:]) for line in out.decode(errors="surrogatepass").split("\n\n") if line]
    assert [each["choices"][0]["delta"]["content"] for each in passed] == texts
    assert {each["model"] for each in passed} <= {"helpdesk"}
    assert [each["id"] for each in passed] == [f"c{number // 3}" for number in range(len(texts))]
    assert stream.heard.answer == "".join(texts)


def test_usage_in_the_last_chunk_with_choices_is_read() -> None:
    stream, _ = fed(event({"content": "a"}, "length", usage={"prompt_tokens": 1, "completion_tokens": 7}), [])
    assert (stream.heard.completion_tokens, stream.heard.finish_reason, stream.done, stream.complete) == (
        7,
        "length",
        False,
        True,
    )


def test_a_stream_without_an_end_is_not_complete() -> None:
    stream, out = fed(b"".join(WHOLE[:5]), [])
    assert not stream.complete
    assert out


def test_an_engine_may_report_an_error_in_the_middle() -> None:
    for line in (b'data: {"error": {"message": "out of memory"}}\n\n', b'error: {"message": "out of memory"}\n\n'):
        stream, _ = fed(WHOLE[3] + line, [])
        assert stream.error is not None
        assert "out of memory" in stream.error
        assert not stream.complete
    assert fed(b"data: nonsense\n\n", [])[0].error is not None


def test_the_client_sees_the_tasks_name() -> None:
    _, out = fed(event({"content": "a"}).replace(b'"helpdesk"', b'"alias"'), [])
    assert json.loads(out[6:])["model"] == "helpdesk"


def test_an_event_of_several_fields_is_read_too() -> None:
    stream, _ = fed(b"event: message\nid: 1\n" + event({"content": "a"}), [])
    assert stream.heard.answer == "a"
