"""What labellers say: who may say what, how far they agree, and what it says of all answers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from label_fakes import NEW, OLD, answered, log, project, traffic
from typer.testing import CliRunner

from noria.apps import access, api
from noria.apps.cli import app
from noria.apps.recording import recorder
from noria.datasets.gather import from_traffic
from noria.datasets.scrub import Scrubber
from noria.errors import Conflict, Invalid, NotFound
from noria.evaluation import labels
from noria.evaluation.lights import labelled
from noria.evaluation.queue import choose
from noria.ports import Platform
from noria.settings import LabelSettings
from noria.types import Feedback, Interaction, new_id
from noria.wiring import open_project

SCALE = "scale = { poor = 1, fair = 2, good = 3, fine = 4, best = 5 }\nright = 4"


def opened(folder: Path, *lines: str, more: str = "") -> Platform:
    return open_project(project(folder, *lines, more=more))


def queued(platform: Platform, rows: list[Interaction]) -> list[str]:
    log(platform, rows)
    batch = choose(platform, "helpdesk")
    assert batch is not None
    return [row.id for row in batch.rows]


def say(platform: Platform, row: str, who: str, value: str | float | None = None, text: str | None = None) -> None:
    with recorder(platform) as writer:
        labels.say(platform, writer, "helpdesk", row, who, value, text, passing=value is None and text is None)


def remove(platform: Platform, row: str, who: str) -> None:
    with recorder(platform) as writer:
        labels.remove(platform, writer, "helpdesk", row, who)


def label(of: Interaction, who: str, value: float | None, correction: str | None = None) -> Feedback:
    return Feedback(
        id=new_id(of.at), at=of.at, interaction=of.id, metric="label", value=value, correction=correction,
        user=f"labeller:{who}",
    )  # fmt: skip


def test_nobody_labels_the_same_answer_twice_and_two_may_label_each(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 1.0", "labellers = 2")
    rows = queued(platform, traffic(6))
    handed: dict[str, list[str]] = {"ann": [], "bob": [], "eve": []}
    for turn in range(12):
        who = "bob" if turn % 2 else "ann"
        row = labels.upcoming(platform, "helpdesk", who)
        assert row is not None
        handed[who].append(row.wanted.id)
        say(platform, row.wanted.id, who, "right")
    assert sorted(handed["ann"]) == sorted(handed["bob"]) == sorted(rows)
    # What one has begun with comes first for the other: it is worth more together.
    assert handed["bob"][0] == handed["ann"][0]
    assert [labels.upcoming(platform, "helpdesk", who) for who in handed] == [None, None, None]
    with pytest.raises(Conflict, match=r"has labelled .* already"):
        say(platform, rows[0], "ann", "wrong")
    assert {row.given for row in labels.rows(platform, "helpdesk")} == {2}


def test_labellers_go_different_ways(tmp_path: Path) -> None:
    """Two who work at the same time seldom meet, and what they have labelled is a fair sample at any time."""
    platform = opened(tmp_path, "share = 1.0")
    rows = queued(platform, traffic(40))
    first = [labels.upcoming(platform, "helpdesk", f"labeller {number}") for number in range(30)]
    assert len({row.wanted.id for row in first if row}) > 15
    places = [rows.index(row.wanted.id) for row in first if row]
    assert 10 < sum(places) / len(places) < 30


def test_a_label_may_be_taken_back_and_given_anew(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 1.0")
    [row] = queued(platform, traffic(1))
    say(platform, row, "ann", "wrong", "Pull it.")
    remove(platform, row, "ann")
    assert labels.show(platform, "helpdesk", row).labels == ()
    assert platform.traffic.read(platform.traffic.mark())[1] == []
    say(platform, row, "ann", 1.0)
    assert [each.value for each in labels.show(platform, "helpdesk", row).labels] == [1.0]
    with pytest.raises(NotFound, match="'bob' has not labelled"):
        remove(platform, row, "bob")


def test_who_cannot_tell_passes_and_another_is_asked(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 1.0")
    [row] = queued(platform, traffic(1))
    say(platform, row, "ann")
    assert labels.upcoming(platform, "helpdesk", "ann") is None
    assert labels.upcoming(platform, "helpdesk", "bob") is not None
    found = labels.estimate(platform, "helpdesk")
    assert (found["labelled"], found["passed"], found["groups"]) == (0, 1, [])


@pytest.mark.parametrize(
    ("value", "text", "who", "fact"),
    [
        ("rihgt", None, "ann", "'rihgt' is not on the scale"),
        ("0.5", None, "ann", "'0.5' is not on the scale"),
        (float("nan"), None, "ann", "not on the scale"),
        (1.0, "  ", "ann", "correction is empty"),
        (1.0, None, " ", "no name for a labeller"),
        (1.0, None, "a\nb", "no name for a labeller"),
        (1.0, None, "x" * 64, "no name for a labeller"),
    ],
)
def test_a_wrong_label_is_told_and_stores_nothing(
    tmp_path: Path, value: str | float, text: str | None, who: str, fact: str
) -> None:
    platform = opened(tmp_path, "share = 1.0")
    [row] = queued(platform, traffic(1))
    with pytest.raises(Invalid, match=fact):
        say(platform, row, who, value, text)
    assert platform.traffic.read(platform.traffic.mark())[1] == []


def test_answers_that_nobody_asked_for_cannot_be_labelled(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 0.0", "first = 1")
    rows = traffic(2)
    queued(platform, rows)
    with pytest.raises(NotFound, match="not in the queue"):
        say(platform, rows[1].id, "ann", "right")


def test_what_clients_send_as_feedback_is_no_label(tmp_path: Path) -> None:
    """A user's key must not be able to pose as a labeller, or to take labels back."""
    platform = opened(tmp_path, "share = 1.0")
    rows = traffic(1)
    [row] = queued(platform, rows)
    say(platform, row, "ann", "right")
    forged = label(rows[0], "", 0.0).model_copy(update={"user": "0123456789abcdef"})
    log(platform, [forged, forged.model_copy(update={"metric": "label.removed"})])
    assert [each.value for each in labels.show(platform, "helpdesk", row).labels] == [1.0]


def test_agreement_by_hand(tmp_path: Path) -> None:
    """Ten answers, seven times alike: chance is 0.6 * 0.7 + 0.4 * 0.3; alpha's is 2 * 13 * 7 / (20 * 19)."""
    platform = opened(tmp_path, "share = 1.0", "labellers = 2", 'level = "nominal"')
    rows = traffic(12)
    queued(platform, rows)
    ann, bob = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0, 1, 1]
    log(platform, [label(row, "ann", value) for row, value in zip(rows, ann, strict=False)])
    log(platform, [label(row, "bob", value) for row, value in zip(rows, bob, strict=False)])
    log(platform, [label(rows[10], "ann", 1.0), label(rows[11], "bob", None)])
    found: dict[str, Any] = labels.agreement(platform, "helpdesk")
    assert found["rows"] == 10
    [pair] = found["pairs"]
    assert (pair["labellers"], pair["rows"], pair["equal"]) == (["ann", "bob"], 10, 0.7)
    assert pair["kappa"] == pytest.approx((0.7 - 0.54) / 0.46, abs=1e-6)
    assert found["alpha"] == pytest.approx(1 - 0.3 / (2 * 13 * 7 / 380), abs=1e-6)


def test_without_shared_answers_there_is_no_agreement(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 1.0")
    rows = traffic(2)
    queued(platform, rows)
    log(platform, [label(rows[0], "ann", 1.0), label(rows[1], "bob", 1.0)])
    found = labels.agreement(platform, "helpdesk")
    assert (found["rows"], found["alpha"], found["pairs"]) == (0, None, [])


def test_a_truth_without_a_value_is_held_against_the_answer(tmp_path: Path) -> None:
    rules = LabelSettings.model_validate({"comparison": {"kind": "tolerant"}, "scale": {"no": 1, "so-so": 2, "yes": 3}})
    truth = labels.Label("ann", None, "after 72 hours")
    assert labels.worth(truth, "After 3 days.", rules) == 3.0
    assert labels.worth(truth, "After 4 days.", rules) == 1.0
    assert labels.worth(labels.Label("ann", 2.0, "after 72 hours"), "After 4 days.", rules) == 2.0
    assert labels.worth(labels.Label("ann", None, None), "After 4 days.", rules) is None
    judged = LabelSettings.model_validate({"comparison": {"kind": "judge", "judge": "correctness"}})
    assert labels.worth(truth, "Three days on.", judged) is None
    assert labels.worth(truth, "Three days on.", judged, lambda prediction, truth: 0.9) == 1.0


@pytest.mark.slow
def test_estimates_are_unbiased_though_doubtful_answers_are_asked_for_and_few_are_labelled(tmp_path: Path) -> None:
    """The whole way: traffic, queue in two batches of which one is labelled less, labels, estimate."""
    drawing = random.Random(5)
    hits = found = plain = 0.0
    turns = 15
    for turn in range(turns):
        platform = opened(tmp_path / str(turn), "share = 0.05", "uncertain = 0.2")
        truth: list[float] = []
        for part in (0, 1):
            rows = traffic(600, seed=100 * turn + part)
            right = {each.id: float(drawing.random() < (each.support or 0)) for each in rows}
            truth += right.values()
            asked = queued(platform, rows)
            answers = {each.id: each for each in rows}
            done = drawing.sample(asked, len(asked) // (2 if part else 1))
            log(platform, [label(answers[row], "ann", right[row]) for row in done])
        told: dict[str, Any] = labels.estimate(platform, "helpdesk")
        assert (told["considered"], told["covered"]) == (1200, 1200)
        overall = told["groups"][0]
        assert overall["group"] == "all"
        hits += overall["right"]["low"] <= 0.5 <= overall["right"]["high"]
        found += overall["right"]["value"] - sum(truth) / len(truth)
        given = [row for row in labels.rows(platform, "helpdesk") if row.given]
        plain += sum(row.labels[0].value or 0 for row in given) / len(given) - 0.5
    # A standard error of about 0.03 of a turn, over 15 turns; the unweighted mean is off by a tenth.
    assert abs(found / turns) < 0.03
    assert plain / turns < -0.06
    assert hits >= 12


def test_estimates_are_by_candidate_and_by_light_and_say_what_they_cover(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 1.0")
    rows = [*traffic(30, light="green"), *traffic(30, seed=2, light="yellow", served_by=OLD)]
    queued(platform, rows)
    log(platform, [label(row, "ann", float(place % 10 > 0)) for place, row in enumerate(rows[:30])])
    log(platform, [label(row, "ann", float(place % 2)) for place, row in enumerate(rows[30:])])
    queued(platform, traffic(10, seed=3))
    told: dict[str, Any] = labels.estimate(platform, "helpdesk")
    found = {each["group"]: each for each in told["groups"]}
    assert set(found) == {"all", NEW, OLD, "light:green", "light:yellow"}
    assert found[NEW]["right"]["value"] == found["light:green"]["right"]["value"] == pytest.approx(0.9)
    assert found[OLD]["right"]["value"] == pytest.approx(0.5)
    assert found["all"]["wrong"] == pytest.approx(18)
    assert (told["considered"], told["covered"], told["wanted"], told["labelled"]) == (70, 60, 70, 60)
    # Wilson's interval of 27 of 30, a little wider for so few (Korn and Graubard).
    assert 0.72 < found[NEW]["right"]["low"] < 0.75
    assert 0.96 < found[NEW]["right"]["high"] < 0.98


def test_a_scale_of_more_values_has_a_mean_and_a_share_of_right_ones(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 1.0", "labellers = 2", SCALE)
    rows = traffic(4)
    queued(platform, rows)
    for row, (one, other) in zip(rows, [(5, 5), (4, 5), (3, 4), (1, 1)], strict=True):
        log(platform, [label(row, "ann", one), label(row, "bob", other)])
    told: dict[str, Any] = labels.estimate(platform, "helpdesk")
    overall = told["groups"][0]
    assert overall["value"]["value"] == pytest.approx((5 + 4.5 + 3.5 + 1) / 4)
    assert overall["right"]["value"] == 0.5
    assert 1 <= overall["value"]["low"] < overall["value"]["high"] <= 5


def test_labels_feed_the_lights_and_the_datasets(tmp_path: Path) -> None:
    rows = traffic(5)
    notes = [
        label(rows[0], "ann", 0.0), label(rows[1], "ann", 1.0), label(rows[1], "bob", 0.0),
        label(rows[2], "ann", None, "Pull the lever."), label(rows[3], "ann", None, "press 3"),
        label(rows[4], "ann", None),
    ]  # fmt: skip
    thumbs = [note.model_copy(update={"metric": "thumbs", "value": 1.0, "user": "u1"}) for note in notes[:1]]
    # Labellers count before users; of two who differ the doubt counts; passing says nothing.
    assert labelled(rows, [*notes, *thumbs]) == {
        rows[0].id: True, rows[1].id: True, rows[2].id: True, rows[3].id: False,
    }  # fmt: skip
    scale = LabelSettings.model_validate({"scale": {"1": 1, "2": 2, "3": 3}, "right": 2})
    assert labelled(rows, [label(rows[0], "ann", 2.0), label(rows[1], "ann", 1.0)], scale) == {
        rows[0].id: False, rows[1].id: True,
    }  # fmt: skip
    platform = opened(tmp_path, "share = 1.0")
    found = list(from_traffic(rows, notes, platform.settings.tasks["helpdesk"], Scrubber()))
    assert [(each.example.origin, each.example.target) for each in found] == [
        ("traffic:correction", "Pull the lever."), ("traffic:correction", "press 3"),
    ]  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Platform, TestClient]]:
    platform = opened(tmp_path, "share = 1.0", "labellers = 2")
    with TestClient(api.build(platform)) as client:
        yield platform, client


def key_of(platform: Platform, name: str, role: str = "developer") -> dict[str, str]:
    return {"authorization": f"Bearer {access.make(platform, name, role)[1]}"}


def test_labelling_over_the_api_is_by_the_name_of_the_key(served: tuple[Platform, TestClient]) -> None:
    platform, client = served
    rows = queued(platform, traffic(3))
    ann, bob = key_of(platform, "ann"), key_of(platform, "bob", "admin")
    given = client.get("/api/labels/helpdesk/next", headers=ann).json()
    assert given["scale"] == {"wrong": 0.0, "right": 1.0}
    row = given["row"]["row"]
    assert row in rows
    assert given["row"]["question"].startswith("Question")
    assert "labels" not in given["row"]
    said = client.post(f"/api/labels/helpdesk/{row}", headers=ann, json={"value": "wrong", "correction": "Pull it."})
    assert said.status_code == 200
    assert said.json()["labels"] == [{"labeller": "ann", "value": 0.0, "correction": "Pull it."}]
    assert client.get("/api/labels/helpdesk/next", headers=bob).json()["row"]["row"] == row
    assert client.post(f"/api/labels/helpdesk/{row}", headers=bob, json={"value": 1}).status_code == 200
    assert client.get("/api/labels/helpdesk/agreement", headers=ann).json()["rows"] == 1
    assert client.get("/api/labels/helpdesk/estimate", headers=ann).json()["labelled"] == 1
    listed = client.get("/api/labels/helpdesk", headers=ann, params={"open_only": True}).json()
    assert sorted(each["row"] for each in listed["data"]) == sorted(set(rows) - {row})
    assert client.delete(f"/api/labels/helpdesk/{row}", headers=ann).json()["given"] == 1
    assert client.delete(f"/api/labels/helpdesk/{row}", headers=ann).status_code == 404


def test_the_api_refuses_what_is_wrong_in_openais_form(served: tuple[Platform, TestClient]) -> None:
    platform, client = served
    [row] = queued(platform, traffic(1))
    user, ann = key_of(platform, "app", "user"), key_of(platform, "ann")
    for path in ("", "/next", "/agreement", "/estimate"):
        assert client.get(f"/api/labels/helpdesk{path}", headers=user).status_code == 401
        assert client.get(f"/api/labels/helpdesk{path}").status_code == 401
        assert client.get(f"/api/labels/none{path}", headers=ann).status_code == 404
    assert client.post(f"/api/labels/helpdesk/{row}", headers=user, json={"value": 1}).status_code == 401
    assert client.delete(f"/api/labels/helpdesk/{row}", headers=user).status_code == 401
    wrong = client.post(f"/api/labels/helpdesk/{row}", headers=ann, json={"value": "rihgt"})
    assert (wrong.status_code, "'rihgt' is not on the scale" in wrong.json()["error"]["message"]) == (400, True)
    assert client.post(f"/api/labels/helpdesk/{row}", headers=ann, json={"vlaue": 1}).status_code == 422
    for body in ({}, {"value": 1, "passing": True}):
        assert client.post(f"/api/labels/helpdesk/{row}", headers=ann, json=body).status_code == 400
    assert client.post("/api/labels/helpdesk/nothing", headers=ann, json={"value": 1}).status_code == 404
    for status in (200, 409):
        assert client.post(f"/api/labels/helpdesk/{row}", headers=ann, json={"value": 1}).status_code == status
    platform.keys.revoke(next(key.id for key in platform.keys.all() if key.name == "ann"), platform.clock.now())
    assert client.get("/api/labels/helpdesk/next", headers=ann).status_code == 401


def noria(folder: Path, *words: str, typed: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(app, ["labels", *words, "--project", str(folder)], input=typed)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.mark.slow
def test_the_commands_from_the_queue_to_the_estimate(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 1.0", "labellers = 2")
    rows = traffic(4)
    log(platform, rows)
    assert "4 of 4 new answers" in noria(tmp_path, "queue")[1]
    assert "no answer of 'helpdesk' came" in noria(tmp_path, "queue", "helpdesk")[1]
    # A wrong entry is asked for again, and what was labelled before and after is kept.
    typed = "rihgt\nright\nwrong\nPull it.\n?\nq\n"
    code, said = noria(tmp_path, "next", "--as", "ann", typed=typed)
    assert code == 0
    assert "'rihgt' is not on the scale" in said
    assert "3 labelled" in said
    assert "The manual." in said
    listed = json.loads(noria(tmp_path, "list", "--json")[1])["data"]
    kept = [each["labels"][0] for each in listed if each["labels"]]
    assert sorted((each["value"], each["correction"]) for each in kept if each["value"] is not None) == [
        (0.0, "Pull it."), (1.0, None),
    ]  # fmt: skip
    fresh = next(each["row"] for each in listed if not each["labels"])
    assert json.loads(noria(tmp_path, "next", "--as", "ann", "--json")[1])["row"]["row"] == fresh
    assert noria(tmp_path, "say", fresh, "right", "--as", "ann")[0] == 0
    assert noria(tmp_path, "say", fresh, "--correction", "Press 9.", "--as", "bob")[0] == 0
    shown = noria(tmp_path, "show", fresh)[1]
    assert "label of ann" in shown
    assert "right is: Press 9." in shown
    assert "with a chance of 1" in shown
    assert "alpha (ordinal)" in noria(tmp_path, "agreement")[1]
    told = json.loads(noria(tmp_path, "estimate", "--json")[1])
    assert (told["labelled"], told["considered"]) == (3, 4)
    assert "3 of 4 asked for are labelled; they stand for 4 of 4 answers" in noria(tmp_path, "estimate")[1]
    assert "taken back" in noria(tmp_path, "remove", fresh, "--as", "bob")[1]
    assert "1 of 2" in noria(tmp_path, "list", "--open")[1]
    with pytest.raises(Invalid, match="what the label is"):
        noria(tmp_path, "say", fresh, "--as", "cy")
    with pytest.raises(Invalid, match="what the label is"):
        noria(tmp_path, "say", fresh, "right", "--pass", "--as", "cy")


def test_the_end_of_the_input_ends_labelling_and_keeps_what_was_said(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 1.0")
    queued(platform, traffic(3))
    noria(tmp_path, "next", "--as", "ann", typed="right\n")
    assert sum(row.given for row in labels.rows(platform, "helpdesk")) == 1


def test_one_label_bounds_nothing_and_is_json_all_the_same(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 1.0")
    rows = traffic(1)
    queued(platform, rows)
    log(platform, [label(rows[0], "ann", 1.0)])
    told: dict[str, Any] = labels.estimate(platform, "helpdesk")
    right = told["groups"][0]["right"]
    assert (right["low"], right["high"]) == (0.0, 1.0)
    json.dumps(told, allow_nan=False)
    assert not math.isnan(right["effective"])


def test_earlier_turns_are_shown(tmp_path: Path) -> None:
    platform = opened(tmp_path, "share = 1.0")
    messages = (
        {"role": "user", "content": "My lamp is dark."}, {"role": "assistant", "content": "Which one?"},
        {"role": "user", "content": [{"type": "text", "text": "The red one."}]},
    )  # fmt: skip
    [row] = queued(platform, [answered(1, messages=messages)])
    shown = noria(tmp_path, "show", row)[1]
    assert "My lamp is dark." in shown
    assert "The red one." in shown
