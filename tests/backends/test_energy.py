"""Energy counters: read where they are, none where they are not, and past the end of their range."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from noria.backends.energy import EnergyMeter

LIBRARY = """
static unsigned long long counted = 5000;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned number, void **handle) { *handle = &counted; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *value) { *value = counted += 250; return 0; }
"""


def package(folder: Path, name: str, energy: int, span: int = 1_000_000) -> Path:
    made = folder / name
    made.mkdir()
    (made / "energy_uj").write_text(f"{energy}\n")
    (made / "max_energy_range_uj").write_text(f"{span}\n")
    return made / "energy_uj"


def test_packages_count_once_and_past_their_range(tmp_path: Path) -> None:
    first, second = package(tmp_path, "intel-rapl:0", 400_000), package(tmp_path, "intel-rapl:1", 900_000)
    part = package(tmp_path, "intel-rapl:0:0", 100_000)
    meter = EnergyMeter(tmp_path, "no such library")
    assert meter.joules() == 0.0
    first.write_text("600000\n")
    second.write_text("100000\n")
    part.write_text("900000\n")
    assert meter.joules() == pytest.approx(0.4)


def test_nothing_to_read_is_told_as_nothing(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path, "no such library").joules() is None
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()
    assert EnergyMeter(tmp_path, "no such library").joules() is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_cards_are_read_through_their_own_library(tmp_path: Path) -> None:
    source, library = tmp_path / "nvml.c", tmp_path / "nvml.so"
    source.write_text(LIBRARY)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    meter = EnergyMeter(tmp_path / "none", str(library))
    # Two cards, each 250 mJ further at every look: 500, then 1000 mJ since the one at the start.
    assert meter.joules() == pytest.approx(0.5 * 2)
