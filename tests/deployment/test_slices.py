"""The slices of a trial: who is asked to try what, and that nobody is sent back and forth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial_fakes import TRIAL

from noria.deployment.slices import arms, trial_of
from noria.gateway.routing import bounds_of, position
from noria.settings import ReleaseSettings
from noria.types import Arm, Endpoint

USERS = [f"user-{number}" for number in range(400)]
OLD, NEW, OTHER = "old", "new", "other"


def arm(served_by: str, share: float = 1.0, name: str = "champion") -> Arm:
    endpoint = Endpoint(url="http://127.0.0.1:1/v1", key="k", model="m")
    return Arm(name=name, share=share, served_by=served_by, engine="local", upstreams=(endpoint,))


def asked(own: tuple[Arm, ...], rest: float) -> dict[str, Arm]:
    """Which arm has each user, as the gateway chooses."""
    both = [*own, arm(OTHER, 1.0 - rest, OTHER)]
    bounds = bounds_of(both)
    return {
        user: next(arm for arm, bound in zip(both, bounds, strict=True) if position("helpdesk", user) < bound)
        for user in USERS
    }


@pytest.mark.slow
@given(
    identity=st.uuids().map(str),
    rest=st.floats(0.1, 1.0),
    canary=st.floats(0.001, 0.5),
    control=st.floats(0.0, 0.5),
)
def test_nobody_gets_the_new_one_and_then_the_old_one_again(
    identity: str, rest: float, canary: float, control: float
) -> None:
    release, trial = ReleaseSettings(canary=canary, control=control), replace(TRIAL, id=identity)
    before = asked((arm(OLD, rest),), rest)
    tried = asked(arms(arm(OLD, rest), arm(NEW), arm(OLD), trial, release), rest)
    watched = asked(arms(arm(NEW, rest), arm(NEW), arm(OLD), replace(trial, canary=False), release), rest)
    ended = asked((arm(NEW, rest),), rest)
    for user in USERS:
        seen = [phase[user].served_by for phase in (before, tried, watched, ended)]
        assert OTHER not in seen or set(seen) == {OTHER}
        assert NEW not in seen or seen[seen.index(NEW) :] == [NEW] * (4 - seen.index(NEW))


@given(rest=st.floats(0.1, 1.0), canary=st.floats(0.001, 0.5), control=st.floats(0.0, 0.5), canaries=st.booleans())
def test_both_slices_are_of_the_size_that_is_wanted(rest: float, canary: float, control: float, canaries: bool) -> None:
    release, trial = ReleaseSettings(canary=canary, control=control), replace(TRIAL, canary=canaries)
    found = arms(arm(OLD, rest), arm(NEW), arm(OLD), trial, release)
    wanted = min(canary if canaries else control, rest / 2)
    shares = {name: sum(each.share for each in found if each.name == name) for name in ("challenger", "control")}
    assert list(shares.values()) == pytest.approx([wanted, wanted])
    assert sum(each.share for each in found) == pytest.approx(rest)


def test_trials_do_not_always_ask_the_same_users() -> None:
    release = ReleaseSettings(canary=0.1)
    tries: dict[str, int] = dict.fromkeys(USERS, 0)
    for number in range(200):
        found = asked(arms(arm(OLD), arm(NEW), arm(OLD), replace(TRIAL, id=str(number)), release), 1.0)
        for user, chosen in found.items():
            tries[user] += chosen.served_by == NEW
    assert max(tries.values()) < 60


def test_a_deployment_without_a_trial_has_none() -> None:
    assert trial_of(None) is None
