"""Hardware that models run on, by name: memory, bandwidth and what its cards can compute."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from typing import Final, Literal

from noria.errors import Invalid
from noria.settings import known

Sort = Literal["cuda", "apple", "cpu"]
_FORM: Final = re.compile(r"(?:(\d+)\s*x\s*)?(\w[\w .-]*?)(?:\s*=\s*(\d+(?:\.\d+)?)\s*g(?:i?b)?)?", re.IGNORECASE)
_CHIP: Final = re.compile(r"-\d+$(?<!-\d{4})|-sxm$")
"""What follows a chip's name: its memory. The four digits of a GeForce belong to it."""
_BFLOAT16, _FP8 = 8.0, 8.9
"""CUDA compute capabilities of Ampere and of Ada."""
_APPLE_SPLIT, _APPLE_SMALL, _APPLE_LARGE = 36.0, 2 / 3, 3 / 4
_CPU_SHARE = 0.9
"""Of a machine's free memory; the rest is the system's."""


@dataclass(frozen=True, slots=True)
class Device:
    """`count` equal devices. `memory_gib` is of one, as a program finds it; `bandwidth` in GB/s, where known."""

    name: str
    sort: Sort
    memory_gib: float
    bandwidth: float | None = None
    compute: float = 0.0
    count: int = 1

    @property
    def bfloat16(self) -> bool:
        """Whether it computes bfloat16; T4 and V100 do not."""
        return self.sort != "cuda" or self.compute >= _BFLOAT16

    @property
    def fp8(self) -> bool:
        """Whether it computes FP8: from Ada and Hopper on."""
        return self.sort == "cuda" and self.compute >= _FP8

    @property
    def share(self) -> float:
        """Part of the memory that an engine may have: vLLM's default on cards, Metal's limit on Apple's."""
        if self.sort == "apple":
            return _APPLE_SMALL if self.memory_gib <= _APPLE_SPLIT else _APPLE_LARGE
        return _CPU_SHARE

    @property
    def called(self) -> str:
        """Its name for people, with how many there are."""
        return f"{self.count}x {self.name}" if self.count > 1 else self.name


def named(text: str) -> Device:
    """The device that a person names: `H100`, `2xL40S`, `RTX 4090`, `m4-max=128GiB`, `CPU=64GiB`.

    Raises Invalid with the nearest name for one that is not known, and for a CPU without its memory.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise Invalid(f"'{text}' is no device", "such as H100, 2xL40S, m4-max=128GiB or CPU=64GiB")
    count, name, memory = int(found[1] or 1), _plain(found[2]), float(found[3] or 0.0)
    if not 1 <= count <= 64:
        raise Invalid(f"'{text}': from 1 to 64 devices", "such as 2xH100")
    if name == "cpu":
        if not memory or count > 1:
            raise Invalid(f"'{text}': a CPU is named with its memory", "such as CPU=64GiB")
        return Device(f"CPU with {memory:g} GiB", "cpu", memory)
    table = catalogue()
    # People write h100 and H100 80GB, rtx4090 and 4090.
    ways = (name, name.removesuffix("-gb"), re.sub(r"-?gb$", "", name), f"rtx-{name}", name.replace("rtx", "rtx-"))
    for way in ways:
        if way in table:
            return replace(table[way], count=count, memory_gib=memory or table[way].memory_gib)
    raise Invalid(f"'{text}' is no device that noria knows", known(name, [*table, "cpu=64gib"]))


def catalogue() -> dict[str, Device]:
    """Every device that can be named, by its names."""
    told = tomllib.loads(resources.files(__package__).joinpath("devices.toml").read_text())
    table: dict[str, Device] = {}
    for sort in ("cuda", "apple"):
        for key, row in told[sort].items():
            device = Device(row["name"], sort, float(row["gib"]), float(row["gbs"]), float(row.get("compute", 0)))
            table |= {name: device for name in (key, *row.get("also", ()))}
    return table


def of_card(name: str, memory_gib: float, compute: float, count: int) -> Device:
    """A card as its driver calls it, such as `NVIDIA H100 80GB HBM3`; its bandwidth where its name is known."""
    words = _plain(re.sub(r"(?i)nvidia|geforce|tesla|laptop gpu", " ", name)).split("-")
    near = [(len(chip), each) for key, each in catalogue().items()
            if words[: len(chip := _CHIP.sub("", key).split("-"))] == chip]  # fmt: skip
    # The longest name is the most exact one; of equal ones, that of the nearest memory.
    best = min(near, key=lambda each: (-each[0], abs(each[1].memory_gib - memory_gib)), default=(0, None))[1]
    return Device(name, "cuda", memory_gib, best.bandwidth if best else None, compute, count)


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.strip().lower())
