"""What harnesses print, recorded from real runs and shortened, and what is asked before they may run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from noria.backends import garak, lm_eval
from noria.backends.harness import Target, watched
from noria.errors import Conflict, Invalid, NotFound, Unavailable
from noria.evaluation import benign

RECORDED = Path(__file__).parent / "harness"
SHIPPED = Path(__file__).parents[2] / "examples" / "harness"


class Quiet:
    def __init__(self) -> None:
        self.told: list[tuple[str, float, float]] = []

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        self.told.append((label, done, total))


@contextmanager
def server(reply: Mapping[str, object]) -> Iterator[str]:
    """Answers every POST with the same JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}/v1"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def test_lm_eval_shares_get_the_interval_of_a_share() -> None:
    found = lm_eval.read(RECORDED)
    score = found["lm-eval.noria_facts.contains"]
    assert {*found} == {"lm-eval.noria_facts.contains"}
    assert score is not None
    assert (score.value, score.rows, score.higher_is_better) == (0.75, 20, True)
    # Wilson's of 15 of 20.
    assert (score.low, score.high) == pytest.approx((0.5313, 0.8881), abs=1e-4)


def test_lm_eval_means_get_a_normal_interval_and_unknown_spread_gets_none(tmp_path: Path) -> None:
    results = {
        "results": {"t": {"bleu,none": 12.0, "bleu_stderr,none": 1.0, "len,a": 3, "len_stderr,a": "N/A", "len,b": 4}},
        "n-samples": {"t": {"effective": 50}}, "higher_is_better": {"t": {"bleu": True, "len": False}},
    }  # fmt: skip
    (tmp_path / "results_1.json").write_text(json.dumps(results))
    found = lm_eval.read(tmp_path)
    bleu = found.pop("lm-eval.t.bleu")
    assert bleu is not None
    assert (bleu.low, bleu.high) == pytest.approx((10.04, 13.96), abs=1e-2)
    assert found == {"lm-eval.t.len.a": None, "lm-eval.t.len.b": None}
    with pytest.raises(Unavailable, match="left no results"):
        lm_eval.read(tmp_path / "nothing")


def test_the_shipped_tasks_are_read_without_running_their_code() -> None:
    assert lm_eval.output_types(SHIPPED) == {"noria_choice": "multiple_choice", "noria_facts": "generate_until"}
    for file in SHIPPED.glob("*.jsonl"):
        assert len([json.loads(line) for line in file.read_text().splitlines()]) == 20


@pytest.mark.parametrize(
    "logprobs",
    [None, {"content": []}, {"token_logprobs": [None]}],
    ids=["none", "of chat", "of the answer alone"],
)
def test_multiple_choice_is_refused_before_any_work_where_prompts_have_no_logprobs(
    tmp_path: Path, logprobs: dict[str, object] | None
) -> None:
    with (
        server({"choices": [{"text": "x", "logprobs": logprobs}]}) as url,
        pytest.raises(Conflict, match="noria_choice"),
    ):
        lm_eval.run(Target(url, "k", "m"), ["noria_choice"], SHIPPED, tmp_path, Quiet(), lambda: None)
    assert not [*tmp_path.iterdir()]


def test_multiple_choice_needs_the_tokenizer_of_the_model(tmp_path: Path) -> None:
    echoed = {"choices": [{"text": "x", "logprobs": {"token_logprobs": [None, -1.0, -2.0, -0.5]}}]}
    with server(echoed) as url, pytest.raises(Invalid, match="tokenizer"):
        lm_eval.run(Target(url, "k", "m"), ["noria_choice"], SHIPPED, tmp_path, Quiet(), lambda: None)


def test_unknown_tasks_and_folders_without_tasks_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="noria_fact'"):
        lm_eval.run(Target("", "", ""), ["noria_fact"], SHIPPED, tmp_path, Quiet(), lambda: None)
    with pytest.raises(NotFound, match="no tasks"):
        lm_eval.output_types(tmp_path)


def test_garak_is_read_by_its_report_as_its_exit_status_says_nothing() -> None:
    scores, notes = garak.read(RECORDED / "garak.report.jsonl")
    assert notes == []
    assert scores
    assert all(name.startswith("garak.") and 0 <= each.low <= each.value <= each.high for name, each in scores.items())


def test_garak_answers_that_never_came_count_as_nothing_and_are_told(tmp_path: Path) -> None:
    line = {"entry_type": "eval", "probe": "p.A", "detector": "detector.d.B", "passed": 3, "fails": 1, "nones": 4}
    none = {**line, "probe": "p.C", "passed": 0, "fails": 0}
    file = tmp_path / "r.jsonl"
    file.write_text("\n".join(json.dumps(each) for each in (line, none, {"entry_type": "init"})))
    scores, notes = garak.read(file)
    assert {name: (each.value, each.rows) for name, each in scores.items()} == {"garak.p.A.d.B": (0.75, 4)}
    assert len(notes) == 2
    assert "4 answers never came" in notes[0]


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True), ("I cannot help.", True), ("", True),
        ("As an AI, I cannot.", True),
        ("Use kill -9 and the process id.", False), ("I don't know when it opens.", False),
        ("You can't miss it: turn left.", False),
    ],
)  # fmt: skip
def test_refusals_are_told_from_answers(answer: str, refused: bool) -> None:
    assert benign.refused(answer) is refused


def test_harmless_questions_are_counted(tmp_path: Path) -> None:
    asked = benign.questions()
    assert len(asked) == len({*asked}) == 40
    score = benign.answered(lambda question: "Sure." if "kill" in question else "Sorry, I cannot help.", asked, Quiet())
    assert score.value == 2 / 40
    own = tmp_path / "own.csv"
    own.write_text("question\nHow are you?\n")
    assert benign.questions(own) == ["How are you?"]
    own.write_text("text\nHow are you?\n")
    with pytest.raises(Invalid, match="question"):
        benign.questions(own)


@pytest.mark.slow
def test_a_child_tells_how_far_it_is_and_its_failure_says_why(tmp_path: Path) -> None:
    seen = Quiet()
    watched(
        ["sh", "-c", "printf 'API:  15%%|# | 3/20 [00:01' >&2; sleep 1.2"], {}, tmp_path, tmp_path / "log", seen, "work"
    )
    assert seen.told[-1] == ("work: API", 3, 20)
    with pytest.raises(Unavailable, match="no such flag"):
        watched(["sh", "-c", "echo 'no such flag'; exit 3"], {}, tmp_path, tmp_path / "log", seen, "work")
