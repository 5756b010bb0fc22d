"""The labelling queue: what is drawn, with which chance, once each, whatever is killed."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from label_fakes import NEW, answered, log, project, traffic

from noria.errors import Invalid
from noria.evaluation.queue import Batch, batches, choose, draw
from noria.gateway.light import Lights
from noria.settings import LabelSettings, LightSettings, TaskSettings
from noria.types import Feedback, Interaction, new_id
from noria.wiring import open_project


def task(lights: LightSettings | None = None, **labels: object) -> TaskSettings:
    rules = LabelSettings.model_validate(labels)
    return TaskSettings(sources=("faq",), base="m", engine="local", lights=lights, labels=rules)


def chosen(folder: Path) -> Batch:
    batch = choose(open_project(folder), "helpdesk")
    assert batch is not None
    return batch


def said(of: Interaction, metric: str, value: float) -> Feedback:
    return Feedback(
        id=new_id(of.at), at=of.at, interaction=of.id, metric=metric, value=value, correction=None, user="judge"
    )


def test_the_first_answers_are_all_asked_for_and_then_a_share(tmp_path: Path) -> None:
    """The first phase collects ground truth for every prediction (C102)."""
    folder = project(tmp_path, "first = 50", "share = 0.2")
    platform = open_project(folder)
    early = traffic(30)
    log(platform, early)
    assert {row.id for row in chosen(folder).rows} == {each.id for each in early}
    late = traffic(400, seed=2)
    log(platform, late)
    batch = chosen(folder)
    first = [row for row in batch.rows if row.reason == "first"]
    assert [row.id for row in first] == [each.id for each in late[:20]]
    assert {row.probability for row in first} == {1.0}
    others = [row for row in batch.rows if row.reason == "random"]
    assert {row.probability for row in others} == {0.2}
    # Of 380 with a chance of 0.2: five standard deviations.
    assert abs(len(others) - 76) < 39
    assert len(batch.rows) == 20 + len(others)


def test_nothing_is_considered_twice_and_nothing_is_left_out(tmp_path: Path) -> None:
    folder = project(tmp_path, "share = 1.0")
    platform = open_project(folder)
    assert choose(platform, "helpdesk") is None
    seen: list[str] = []
    for turn in range(3):
        log(platform, traffic(20, seed=turn))
        # Logged now, but asked for before what was considered last: a long answer.
        log(platform, [answered(500 + turn, timedelta(minutes=40))])
        seen += [row.id for row in chosen(folder).rows]
        assert choose(platform, "helpdesk") is None
    assert [batch.considered for batch in batches(platform, "helpdesk")] == [21, 21, 21]
    assert len(set(seen)) == len(seen) == 63
    assert [batch.before for batch in batches(platform, "helpdesk")] == [0, 21, 42]


def test_only_answers_that_were_given_and_may_be_shown_are_considered(tmp_path: Path) -> None:
    spoiled: list[dict[str, Any]] = [
        {"status": 502}, {"answer": " "}, {"task": "other"}, {"request": {"shadow_of": "x"}, "arm": "b"},
        {"trainable": False},
    ]  # fmt: skip
    records = [answered(number, **more) for number, more in enumerate([*spoiled, {}])]
    for private, count in (("false", 1), ("true", 2)):
        folder = project(tmp_path / private, "share = 1.0", f"private = {private}")
        log(open_project(folder), records)
        assert [row.id for row in chosen(folder).rows] == [each.id for each in records[6 - count :]]


def test_a_client_that_calls_its_request_a_shadow_is_considered_all_the_same(tmp_path: Path) -> None:
    folder = project(tmp_path, "share = 1.0")
    posing = answered(1, request={"shadow_of": answered(0).id})
    log(open_project(folder), [posing])
    assert [row.id for row in chosen(folder).rows] == [posing.id]


def test_a_task_without_labels_has_no_queue(tmp_path: Path) -> None:
    from noria.apps import start

    start.make(tmp_path)
    with pytest.raises(Invalid, match="asks nobody for labels") as caught:
        choose(open_project(tmp_path), "helpdesk")
    assert "[tasks.helpdesk.labels]" in caught.value.hint


def test_doubtful_answers_are_drawn_more_often_and_the_budget_holds() -> None:
    rows = traffic(4000)
    doubts = [1 - (each.support or 0) for each in rows]
    drawn, _ = draw(rows, doubts, [0.0] * 4000, task(share=0.05, uncertain=0.2), 0, 1.0)
    chances = {row.id: row.probability for row in drawn}
    reasons = Counter(row.reason for row in drawn)
    # Five standard deviations of a count of 200 and of 800.
    assert abs(reasons["random"] - 200) < 70
    assert abs(reasons["uncertain"] - 800) < 130
    for each in rows:
        if each.id in chances:
            assert chances[each.id] == pytest.approx(0.05 + 0.4 * (1 - (each.support or 0)), rel=0.05)


def test_what_is_disagreed_on_is_drawn_more_often(tmp_path: Path) -> None:
    """Shadows that answered otherwise, and judges that are apart; where all agree, chance alone decides."""
    folder = project(tmp_path, "share = 0.01", "disagree = 0.3")
    rows = traffic(300)
    shadows = [
        answered(
            number, request={"shadow_of": each.id}, arm="b", trainable=False,
            answer=each.answer if number % 3 else "Something else entirely",
        )
        for number, each in enumerate(rows[:150])
    ]  # fmt: skip
    judged = [
        said(each, f"judge:{name}", value)
        for number, each in enumerate(rows[150:])
        for name, value in (("strict", 1.0 + number % 2), ("mild", 4.0 if number % 3 == 0 else 1.0 + 3 * (number % 2)))
    ]
    platform = open_project(folder)
    log(platform, [*rows, *shadows, *judged])
    batch = chosen(folder)
    chances = {row.id: row.probability for row in batch.rows if row.reason == "disagree"}
    # A third of the shadows differ; of the judges, one says the least and the other the most in a sixth of the rows.
    apart = {each.id for each in rows[:150:3]} | {each.id for number, each in enumerate(rows[150:]) if number % 6 == 0}
    assert set(chances) <= apart
    assert len(chances) > 50
    assert set(chances.values()) == {1.0}


def test_the_budget_of_a_day_holds_and_every_answer_keeps_its_chance() -> None:
    rows = traffic(2000)
    drawn, _ = draw(rows, [1.0] * 2000, [0.0] * 2000, task(share=0.2, uncertain=0.3, per_day=50), 0, 2.0)
    assert {round(row.probability, 9) for row in drawn} == {0.05}
    assert abs(len(drawn) - 100) < 50
    free, _ = draw(rows, [1.0] * 2000, [0.0] * 2000, task(share=0.2, uncertain=0.3, per_day=50), 0, 40.0)
    assert {round(row.probability, 9) for row in free} == {0.5}


def test_green_answers_whose_users_were_asked_to_confirm_are_asked_for_too() -> None:
    """A share of green answers is confirmed (C103): those that the gateway drew, with the chance that it drew by."""
    rules = LightSettings(confirm=0.3)
    rows = traffic(2000, light="green")
    drawn, _ = draw(rows, [0.0] * 2000, [0.0] * 2000, task(rules, share=0.1), 0, 1.0)
    confirmed = {row.id for row in drawn if row.reason == "confirm"}
    assert confirmed == {each.id for each in rows if Lights(rules).confirms("green", each.id)}
    assert {round(row.probability, 9) for row in drawn} == {round(1 - 0.7 * 0.9, 9)}
    assert abs(len(drawn) - 2000 * 0.37) < 5 * math.sqrt(2000 * 0.37 * 0.63)
    yellow = [each.model_copy(update={"light": "yellow"}) for each in rows]
    drawn, _ = draw(yellow, [0.0] * 2000, [0.0] * 2000, task(rules, share=0.1), 0, 1.0)
    assert {row.probability for row in drawn} == {0.1}


def test_without_a_share_labels_stand_for_the_first_and_the_confirmed_alone() -> None:
    rows = [each.model_copy(update={"light": "green" if place % 2 else "red"}) for place, each in enumerate(traffic(9))]
    drawn, reachable = draw(rows, [0.0] * 9, [0.0] * 9, task(share=0.0, first=3), 0, 1.0)
    assert (len(drawn), reachable) == (3, 3)
    rules = LightSettings(confirm=0.1)
    assert draw(rows, [0.0] * 9, [0.0] * 9, task(rules, share=0.0, first=3), 0, 1.0)[1] == 6


@pytest.mark.slow
def test_a_cycle_chooses_too(tmp_path: Path) -> None:
    from noria.apps.screen import Screen
    from noria.cycle import turn

    folder = project(tmp_path, "share = 1.0")
    platform = open_project(folder)
    log(platform, traffic(5))
    turn(platform, None, Screen(quiet=True), until="sources")
    assert [batch.considered for batch in batches(platform, "helpdesk")] == [5]


def test_an_unknown_score_tells_nothing(tmp_path: Path) -> None:
    folder = project(tmp_path, "share = 0.01", "uncertain = 0.3")
    rows = [*traffic(100), *(answered(200 + number) for number in range(100))]
    log(open_project(folder), rows)
    chances = {row.id: row.probability for row in chosen(folder).rows}
    unknown = {each.id for each in rows[100:]}
    assert {round(chance, 9) for row, chance in chances.items() if row in unknown} == {0.31}


def test_what_was_drawn_does_not_depend_on_when_a_run_was_killed(tmp_path: Path) -> None:
    """The same answers from the same traffic: nothing is gained by choosing until the choice pleases."""
    rows = traffic(300)
    found = []
    for turn in range(2):
        folder = project(tmp_path / str(turn), "share = 0.1", "uncertain = 0.1")
        log(open_project(folder), rows)
        found.append(chosen(folder).rows)
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_is_taken_up_again(tmp_path: Path) -> None:
    folder = project(tmp_path, "share = 0.5")
    number = 0
    for turn in range(6):
        command = [sys.executable, str(Path(__file__).with_name("label_fakes.py")), str(folder), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline()]
            time.sleep(0.013 * turn)
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()
        number = int(lines[-1]) + 1000
    platform = open_project(folder)
    choose(platform, "helpdesk")
    found = batches(platform, "helpdesk")
    interactions, _ = platform.traffic.read(platform.traffic.mark())
    rows = [row.id for batch in found for row in batch.rows]
    assert len(found) > 4
    assert len(set(rows)) == len(rows)
    assert sum(batch.considered for batch in found) == len({each.id for each in interactions})
    assert [batch.number for batch in found] == list(range(len(found)))
    assert choose(platform, "helpdesk") is None


@pytest.mark.slow
def test_two_that_choose_at_the_same_time_choose_once(tmp_path: Path) -> None:
    folder = project(tmp_path, "share = 1.0")
    log(open_project(folder), traffic(200))
    command = [sys.executable, "-m", "noria", "labels", "queue", "--json", "--project", str(folder)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [json.loads(child.communicate(timeout=120)[0])["batch"] for child in children]
    assert sorted(batch["wanted"] if batch else 0 for batch in told) == [0, 200]


@pytest.mark.parametrize(
    ("lines", "fact"),
    [
        ("share = 0.0\nuncertain = 0.1", "answers that can never be drawn"),
        ("scale = { good = 1 }", "at least 2"),
        ("scale = { good = 1, fine = 1 }", "one value only"),
        ("right = 0", "right must lie above 0"),
        ("frist = 3", "did you mean"),
        ('comparison = { kind = "tolerant", tolerance = 1 }', "unknown key"),
    ],
)
def test_wrong_settings_are_told(tmp_path: Path, lines: str, fact: str) -> None:
    with pytest.raises(Invalid) as caught:
        open_project(project(tmp_path, lines))
    assert fact in f"{caught.value.fact} {caught.value.hint}"


def test_the_ledger_keeps_what_was_chosen_when(tmp_path: Path) -> None:
    folder = project(tmp_path, "share = 1.0")
    log(open_project(folder), traffic(5))
    told = chosen(folder).told()
    assert (told["batch"], told["considered"], told["wanted"], told["reasons"]) == (0, 5, 5, {"random": 5})
    assert told["reachable"] == 5
    assert NEW not in json.dumps(told)
