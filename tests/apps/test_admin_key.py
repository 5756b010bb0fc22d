"""The admin key of many machines on one ledger: given, not made."""

from __future__ import annotations

from pathlib import Path

import pytest

from noria.apps import access, start
from noria.errors import Conflict, Invalid
from noria.wiring import open_project


def test_a_given_admin_key_is_registered_once_and_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.make(tmp_path / "shop")
    platform = open_project(tmp_path / "shop")
    given = "n" * 40
    monkeypatch.setenv(access.ADMIN_VARIABLE, given)
    assert access.admin_key(platform) == access.admin_key(platform) == given
    assert [key.role for key in platform.keys.all()] == ["admin"]
    assert not (platform.settings.state / "admin.key").exists()
    access.revoke(platform, "admin")
    with pytest.raises(Invalid, match="was revoked"):
        access.admin_key(platform)
    monkeypatch.setenv(access.ADMIN_VARIABLE, "short")
    with pytest.raises(Invalid, match="5 characters"):
        access.admin_key(platform)


def test_a_given_key_is_stripped_made_by_one_of_many_and_must_be_an_admin_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.make(tmp_path / "shop")
    platform = open_project(tmp_path / "shop")
    given = "n" * 40
    monkeypatch.setenv(access.ADMIN_VARIABLE, f"{given}\n")
    assert access.admin_key(platform) == given
    with pytest.raises(Conflict, match="already"):
        access.make(platform, "other", "admin", given=given)
    access.make(platform, "reader", "user", given="u" * 40)
    monkeypatch.setenv(access.ADMIN_VARIABLE, "u" * 40)
    with pytest.raises(Invalid, match="has the role 'user'"):
        access.admin_key(platform)
