"""The stage `study`: real studies, lake and settings; only the training is computed in no time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from study_bench import SPACE, Bench

from noria import cycle
from noria.backends.fake import FakeClock
from noria.backends.ledger import SqlRuns, open_engine
from noria.cycle import STAGES
from noria.errors import Invalid, NotFound
from noria.settings import LoraRecipe
from noria.stage import check_order, stages_of
from noria.training import adapter, study
from noria.training.weights import held_out
from noria.types import Artifact, Cycle, Run, Trial

BENCH = Path(__file__).with_name("study_bench.py")


@pytest.mark.slow
def test_the_adapter_is_trained_with_what_the_study_found_best(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    meta, ref = bench.run()
    told, winner = bench.made(ref, "study.json"), bench.made(ref, "winner.json")
    done = [Trial.model_validate(each) for each in told["trials"]]
    assert len(done) == 6
    best = min((each for each in done if each.value is not None), key=lambda each: each.value or 0.0)
    assert winner == {"study": meta["study"], "trial": best.number, "value": best.value, "values": best.values}
    assert best.value is not None
    assert done[0].values == {"learning_rate": 1e-4, "rank": 4}, "the recipe as it stands is tried first"
    assert best.value < (done[0].value or 0.0)
    assert {"history.png", "slices.png"} <= {file.name for file in bench.lake.path(ref).iterdir()}
    inputs = {**bench.inputs, "study": Artifact(ref=ref, parents=(), run_key="0" * 16)}
    look = replace(bench.look(), inputs=inputs)
    recipe = study.tuned(look).task.recipe
    assert isinstance(recipe, LoraRecipe)
    assert (recipe.learning_rate, recipe.rank) == (best.values["learning_rate"], best.values["rank"])
    assert (recipe.start, recipe.epochs) == ("base", 1.0)
    assert adapter.params(look) != adapter.params(bench.look())
    assert adapter.observes(look) is None


@pytest.mark.slow
def test_trials_are_compared_on_conversations_that_they_do_not_learn(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run()
    talks = [f"talk {number // 2}" for number in range(24)]
    held = held_out(talks, 0.2)
    for job in bench.trainer.jobs:
        learned = {talks[number] for step in job.plan for number in step}
        assert {talks[number] for number in job.validation} == held
        assert learned.isdisjoint(held)
        assert (job.start, job.state) == (None, None)


@pytest.mark.slow
def test_the_same_again_makes_no_trial_and_the_same_bytes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert study.observes(bench.look()) == 0
    _, first = bench.run()
    assert study.observes(bench.look()) == 6
    jobs, runs = len(bench.trainer.jobs), len(bench.tracking.runs)
    _, again = bench.run()
    assert first == again
    assert (len(bench.trainer.jobs), len(bench.tracking.runs)) == (jobs, runs)


@pytest.mark.slow
def test_a_larger_budget_goes_on_where_the_study_is(tmp_path: Path) -> None:
    small = Bench(tmp_path)
    meta, _ = small.run()
    (tmp_path / "noria.toml").unlink()
    large = Bench(tmp_path, tune=f'trials = 9\nsampler = "random"\npruning = "none"\n{SPACE}')
    more, _ = large.run()
    assert (more["study"], more["trials"]) == (meta["study"], 9)
    assert len(large.trainer.jobs) <= 3


@pytest.mark.slow
def test_the_whole_study_is_shown_as_one_run_with_its_trials_below(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run()
    (name, run, parent, files), *below = bench.tracking.runs
    assert (name, parent, run["trials"]) == ("study cycle-1", None, 6)
    assert {"study.json", "winner.json", "history.png", "slices.png"} <= set(files)
    assert [each[0] for each in below] == [f"trial {number}" for number in range(6)]
    assert {each[2] for each in below} == {"run 1"}


@pytest.mark.slow
def test_hopeless_trials_are_pruned_and_never_win(tmp_path: Path) -> None:
    tune = f'trials = 14\nsampler = "random"\npruning = "median"\n{SPACE}'
    bench = Bench(tmp_path, tune=tune, recipe='{ kind = "lora", learning_rate = 1e-3, rank = 8 }')
    meta, ref = bench.run()
    trials = [Trial.model_validate(each) for each in bench.made(ref, "study.json")["trials"]]
    pruned = [each for each in trials if each.state == "pruned"]
    assert pruned
    assert all(each.value is None and 0 < len(each.curve) < 10 for each in pruned)
    assert meta["best"] == pytest.approx(1.1)


@pytest.mark.slow
def test_a_metric_is_measured_on_rows_that_are_not_in_the_features(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tune=f'trials = 2\nmetric = "token_f1"\n{SPACE}')
    meta, _ = bench.run()
    assert (meta["best"], meta["metric"]) == (0.5, "token_f1")
    held = {f"{number:016x}" for number in range(24) if f"talk {number // 2}" in
            held_out([f"talk {n}" for n in range(12)], 0.2)}  # fmt: skip
    assert [set(ids) for ids in bench.scored] == [held, held]
    for job in bench.trainer.jobs:
        assert sorted({number for step in job.plan for number in step}) == list(range(24 - len(held)))
        assert not job.validation


@pytest.mark.slow
def test_energy_and_minutes_are_budgets(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tune=f"trials = 50\nenergy_wh = 0.035\n{SPACE}")
    meta, _ = bench.run()
    assert meta["trials"] == 4


def test_few_rows_are_told_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, rows=6)
    with pytest.raises(Invalid, match="'help' has 6 training rows of 3 conversations; a search needs 10") as caught:
        bench.run()
    assert caught.value.where.startswith("noria.toml:")
    assert not bench.trainer.jobs


def test_a_search_of_which_nothing_comes_says_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.trainer.fails = "the loss of step 1 is not a number"
    with pytest.raises(Invalid, match="3 failed, the last of them: the loss of step 1"):
        bench.run()
    assert len(bench.trainer.jobs) == 3


def test_a_trial_without_rows_to_compare_on_fails_with_a_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(Invalid, match="3 failed, the last of them: no row was kept to compare trials on"):
        study.work(bench.prepared(), replace(bench.means, make=lambda work: {}))


def test_pairs_are_not_searched(tmp_path: Path) -> None:
    bench = Bench(tmp_path, recipe='{ kind = "dpo" }')
    with pytest.raises(Invalid, match="recipe 'dpo' of task 'help' cannot be searched") as caught:
        study.check(bench.look(), bench.means)
    assert caught.value.where.startswith("noria.toml:")


@pytest.mark.slow
def test_an_interrupted_trial_is_made_again_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    bench.trainer.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    bench.trainer.interrupted = False
    meta, ref = bench.run()
    assert meta["trials"] == 6
    assert bench.made(ref, "study.json")["trials"][0]["values"] == {"learning_rate": 1e-4, "rank": 4}


@pytest.mark.parametrize(
    ("tune", "fact"),
    [
        (f'metric = "bleu"\n{SPACE}', "no metric 'bleu'"),
        (f'metric = "token_f1"\n{SPACE}', ""),
    ],
)
def test_the_metric_must_be_the_tasks(tmp_path: Path, tune: str, fact: str) -> None:
    bench = Bench(tmp_path, tune=tune)
    if fact:
        with pytest.raises(Invalid, match=fact):
            study.check(bench.look(), bench.means)
    else:
        study.check(bench.look(), bench.means)


def test_what_changes_no_weights_has_no_loss(tmp_path: Path) -> None:
    bench = Bench(tmp_path, recipe='{ kind = "few-shot" }', tune="space = { shots = [2, 4] }")
    with pytest.raises(Invalid, match="recipe 'few-shot' changes no weights"):
        study.check(bench.look(), bench.means)


def test_energy_that_nothing_counts_is_no_budget(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tune=f"energy_wh = 5.0\n{SPACE}")
    with pytest.raises(Invalid, match="does not count its energy"):
        study.check(bench.look(), replace(bench.means, energy=lambda: False))


def test_only_tasks_with_the_table_have_the_stage(tmp_path: Path) -> None:
    task = Bench(tmp_path).settings.tasks["help"]
    without = stages_of(STAGES, task.model_copy(update={"tune": None}))
    assert [each.name for each in without if each.name == "study"] == []
    assert next(each.reads for each in without if each.name == "adapter") == ("features",)
    with_it = stages_of(STAGES, task)
    check_order(without)
    check_order(with_it)
    names = [each.name for each in with_it]
    assert names[names.index("study") - 1 : names.index("study") + 2] == ["features", "study", "adapter"]
    assert with_it[names.index("adapter")].reads == ("features", "study")


@pytest.mark.slow
def test_another_process_joins_the_study_of_the_cycle_that_runs(tmp_path: Path) -> None:
    bench, clock = Bench(tmp_path), FakeClock()
    ledger = open_engine(bench.ledger, tmp_path)
    runs = SqlRuns(ledger)
    platform = replace(bench.platform, runs=runs, clock=clock)
    runs.save(Cycle(id="cycle-1", task="help", began=clock.now()))
    with pytest.raises(NotFound, match="no study of 'help' is under way"):
        cycle.join(platform, "help", bench.progress)
    for stage, artifact in bench.inputs.items():
        run = Run(
            key=artifact.run_key, stage=stage, task="help", cycle="cycle-1", output=artifact.ref, seconds=1.0,
            peak_mb=1.0, at=clock.now(),
        )  # fmt: skip
        runs.record(run, artifact)
    with pytest.raises(NotFound, match="there is no study 'help-"):
        cycle.join(platform, "help", bench.progress)
    meta, _ = bench.run()
    (tmp_path / "noria.toml").write_text((tmp_path / "noria.toml").read_text().replace("trials = 6", "trials = 9"))
    larger = Bench(tmp_path)
    work = larger.prepared()
    larger.studies.open(study.name_of(work), study._plan(work, rises=False))
    assert cycle.join(platform, "help", bench.progress) == (meta["study"], 3)
    ledger.dispose()


def started(folder: Path, ledger: str, pause: float, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(BENCH), str(folder), ledger, str(pause), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(bench: Bench, ended: int) -> None:
    """Until so many trials are through, and another one has been measured on its way."""
    deadline, there = time.monotonic() + 120, list[Trial]()
    while time.monotonic() < deadline:
        with suppress(NotFound):
            there = bench.studies.open(study.name_of(bench.look())).trials()
        under_way = any(each.state == "running" and each.curve for each in there)
        if under_way and sum(each.state == "complete" for each in there) >= ended:
            return
        time.sleep(0.1)
    raise AssertionError(there)


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_with_the_trial_that_was_under_way(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tune=f'trials = 6\npruning = "none"\n{SPACE}')
    with started(tmp_path, bench.ledger, 0.1, "work") as first:
        wait_for(bench, ended=2)
        first.kill()
    before = bench.studies.open(study.name_of(bench.look())).trials()
    under_way = next(each for each in before if each.state == "running")
    meta, ref = bench.run()
    trials = bench.studies.open(meta["study"]).trials()
    assert next(each.state for each in trials if each.number == under_way.number) == "lost"
    again = [each for each in trials if each.number != under_way.number and each.values == under_way.values]
    assert "complete" in {each.state for each in again}
    assert meta["trials"] == 6
    kept = {each["number"]: each for each in bench.made(ref, "study.json")["trials"]}
    done = [each for each in before if each.state == "complete"]
    assert all(kept[each.number]["value"] == each.value for each in done)
    assert len(bench.trainer.jobs) <= 6 - len(done)


@pytest.mark.slow
def test_two_processes_share_one_study_on_postgresql(tmp_path: Path, postgres: str) -> None:
    bench = Bench(tmp_path, postgres, tune=f'trials = 8\npruning = "none"\n{SPACE}')
    with started(tmp_path, postgres, 0.1, "work") as first:
        wait_for(bench, ended=0)
        with started(tmp_path, postgres, 0.1, "help") as second:
            helped, _ = second.communicate(timeout=300)
            told, _ = first.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (0, 0)
    meta, made = json.loads(told), json.loads(helped)["made"]
    trials = bench.studies.open(meta["study"]).trials()
    assert [each.number for each in trials] == list(range(8))
    assert {each.state for each in trials} == {"complete"}
    assert 0 < made < 8
    values = [json.dumps(each.values) for each in trials if each.because != "as before"]
    assert len(set(values)) == len(values)
