from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from noria.backends import machine
from noria.backends.processes import tree

GIB = 2**30


def put(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_free_memory_is_what_is_available(tmp_path: Path) -> None:
    root = put(tmp_path, proc__meminfo="MemTotal: 32000000 kB\nMemAvailable: 16000000 kB\n")
    assert machine.free_memory(root) == 16_000_000 * 1024


def test_a_container_has_what_its_group_leaves(tmp_path: Path) -> None:
    root = put(tmp_path, proc__meminfo="MemAvailable: 16000000 kB\n", proc__self__cgroup="0::/shop/app\n")
    group = root / "sys/fs/cgroup/shop"
    put(group / "app", **{"memory.max": "max\n", "memory.current": "100\n"})
    put(
        group,
        **{
            "memory.max": f"{4 * GIB}\n",
            "memory.current": f"{3 * GIB}\n",
            "memory.stat": f"anon 5\ninactive_file {GIB}\n",
        },
    )
    assert machine.free_memory(root) == 2 * GIB


def test_groups_of_the_first_version_count_too(tmp_path: Path) -> None:
    root = put(tmp_path, proc__meminfo="MemAvailable: 16000000 kB\n", proc__self__cgroup="4:memory:/job\n1:cpu:/job\n")
    put(root / "sys/fs/cgroup/memory/job", **{"memory.limit_in_bytes": f"{GIB}\n", "memory.usage_in_bytes": "0\n"})
    put(
        root / "sys/fs/cgroup/memory",
        **{"memory.limit_in_bytes": "9223372036854771712\n", "memory.usage_in_bytes": "0\n"},
    )
    assert machine.free_memory(root) == GIB


def test_this_machine() -> None:
    assert 2**20 < (machine.free_memory() or 0) < 2**50


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("NVIDIA H100 80GB HBM3, 81920, 80896, 9.0", [machine.Card("NVIDIA H100 80GB HBM3", 80.0, 79.0, 9.0)]),
        ("Tesla T4, 15360, 14336, 7.5\nNo devices were found\n", [machine.Card("Tesla T4", 15.0, 14.0, 7.5)]),
        ("No devices were found", []),
        ("NVIDIA Spark, [N/A], [N/A], 12.1", []),
    ],
)  # fmt: skip
def test_cards_as_the_driver_lists_them(said: str, found: list[machine.Card]) -> None:
    assert machine.cards(("echo", said)) == found


def test_without_a_driver_there_are_no_cards() -> None:
    assert machine.cards(("no-such-nvidia-smi",)) == []
    assert machine.cards(("false",)) == []


def test_what_processes_take() -> None:
    code = "import time; held = bytearray(64 * 2**20); print(len(held), flush=True); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    before = {*tree([os.getpid()])}
    process = subprocess.Popen((sys.executable, "-c", outer), stdout=subprocess.PIPE, process_group=0)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        grown = {*tree([os.getpid()])} - before
        assert process.pid in grown
        assert len(grown) == 2
        assert 64 * 2**20 < machine.taken(grown) < 200 * 2**20
    finally:
        os.killpg(process.pid, 9)
        process.communicate()
    assert machine.taken({process.pid}) == 0
