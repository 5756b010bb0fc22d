"""Checks of this machine: processor, memory, disk, ports, the hub's variables, clock."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from noria.apps.doctor.check import Check, gib, warning

DISK_GB: Final = 2.0
DISK_SHARE: Final = 0.05
MEMORY_GB: Final = 4.0
PACKAGES: Final = {
    "llamacpp": ("xllamacpp", "gguf"),
    "data": ("pysail", "pyspark", "selectolax", "rensa"),
    "train": ("torch", "transformers", "peft", "trl"),
    "evaluate": ("rouge_score",),
    "mlflow": ("mlflow",),
}
"""What each extra brings."""
GATED: Final = ("meta-llama/", "google/gemma", "mistralai/", "bigcode/starcoder", "CohereForAI/", "CohereLabs/")
"""Owners of models on the hub whose licence must be accepted first; there are others."""
_PLACEHOLDERS: Final = ("/path/to", "your_", "your-", "<", "xxx", "changeme", "...", "…")
_Variable = Callable[[str], str | None]


def checks(start: Path, now: datetime) -> Iterator[Check]:
    """All of the machine; `start` is on the disk that is filled."""
    good = sys.version_info >= (3, 11)
    yield Check("Python", good, sys.version.split()[0], "" if good else "install Python 3.11 or later")
    yield disk(*shutil.disk_usage(start)[::2])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    good = memory >= MEMORY_GB * 0.93
    yield Check("memory", good, f"{memory:.1f} GB", "" if good else "lower recipe.batch and engine slots")
    cpuinfo = Path("/proc/cpuinfo")
    yield processor(cores(), cpuinfo.read_text() if cpuinfo.is_file() else "")
    yield clock(now, Path(__file__).stat().st_mtime)
    for extra, modules in PACKAGES.items():
        missing = [name for name in modules if find_spec(name) is None]
        found = f"missing: {', '.join(missing)}" if missing else "installed"
        yield Check(f"noria[{extra}]", not missing, found, f"pip install 'noria[{extra}]'" if missing else "")


def disk(total: int, free: int) -> Check:
    """Bytes of the disk; a little is always kept, since a full one loses interactions."""
    found = f"{free / 1e9:.1f} GB"
    if free / 1e9 < DISK_GB:
        return Check("free disk", False, found, f"free {DISK_GB} GB")
    if free < DISK_SHARE * total:
        return warning("free disk", f"{found}, {free / total:.0%} of it", "see what fills it: du -xh --max-depth=2 /")
    return Check("free disk", True, found)


def processor(count: int, cpuinfo: str) -> Check:
    """Cores that this process may use, and vector instructions, of Linux's /proc/cpuinfo (empty elsewhere)."""
    flags = next((line.split(":", 1)[1].split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])
    if flags and "avx2" not in flags:
        return warning(
            "cores", f"{count}, without AVX2", "answers will be slow: lower max_tokens, take a smaller model or a GPU"
        )
    if count < 2:
        return warning("cores", str(count), "engine and gateway share it: answers will be slow; give it 2 or more")
    return Check("cores", True, str(count))


def bfloat16_is_slow(cpuinfo: str) -> bool:
    """Whether this processor has no instructions for bfloat16, so that float32 is faster."""
    line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return bool(line) and not {"avx512_bf16", "amx_bf16"} & set(line.split())


def cores() -> int:
    """Cores that this process may use: of the machine, by its affinity and by its control group."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")
    if limit.is_file():
        quota, _, period = limit.read_text().partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            usable = min(usable, max(1, int(quota) // int(period)))
    return usable


def clock(now: datetime, installed: float) -> Check:
    """A clock before noria's own files were written is wrong: certificates and tokens would be refused."""
    if now.timestamp() < installed - 86400:
        return Check("clock", False, now.isoformat(timespec="seconds"), "set it: timedatectl set-ntp true")
    return Check("clock", True, now.isoformat(timespec="seconds"))


def port(name: str, listen: str) -> Check:
    """Whether an address can be listened at; where not, by whom it is taken."""
    host, _, number = listen.rpartition(":")
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), int(number), type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return Check(name, False, f"{listen}: {error.strerror}", "change it under [runtime]")
        found = holder(int(number))
        who = f" by process {found[0]} ({found[1]})" if found else ""
        end = f"kill {found[0]}" if found else f"find it: ss -ltnp 'sport = :{number}'"
        return Check(name, False, f"{listen} is in use{who}", f"{end}, or change it under [runtime]")
    return Check(name, True, f"{listen} is free")


def holder(number: int) -> tuple[int, str] | None:
    """Id and command of the process that listens at a TCP port; None where it is not ours to see (or not Linux)."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(Path("/proc/net") / table, number)}
    if not inodes:
        return None
    sought = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(handle) in sought for handle in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return int(process.name), words[:80]
        except OSError:
            continue
    return None


def _listening(table: Path, number: int) -> Iterator[str]:
    """Inodes of sockets in state LISTEN (0A) at a port; the form is that of Linux's proc_net_tcp."""
    if not table.is_file():
        return
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == number:
            yield fields[9]


def hub(models: list[str], variable: _Variable) -> Iterator[Check]:
    """Whether models that are named by their id on the Hugging Face hub can be had; nothing is asked of the network."""
    home = variable("HF_HOME")
    if home is not None:
        yield hub_home(home)
    token = variable("HF_TOKEN")
    if token is None and variable("HUGGING_FACE_HUB_TOKEN"):
        yield warning(
            "HF_TOKEN", "only the old HUGGING_FACE_HUB_TOKEN is set", "export HF_TOKEN=$HUGGING_FACE_HUB_TOKEN"
        )
        token = variable("HUGGING_FACE_HUB_TOKEN")
    if token is not None and (not token.startswith("hf_") or _placeholder(token)):
        yield Check(
            "HF_TOKEN", False, "it does not look like a token of the hub", "make one there: export HF_TOKEN=hf_…"
        )
    folder = Path(home) if home else Path(variable("HOME") or "/") / ".cache" / "huggingface"
    known = token is not None or (folder / "token").is_file()
    for model in models:
        here = (folder / "hub" / f"models--{model.replace('/', '--')}").is_dir()
        if here:
            continue
        if variable("HF_HUB_OFFLINE") in ("1", "true", "True"):
            yield Check(f"model {model}", False, "it is not here, and HF_HUB_OFFLINE is set", f"hf download {model}")
        elif model.startswith(GATED) and not known:
            yield Check(
                f"model {model}", False, "gated, and no token is set",
                f"accept its licence at huggingface.co/{model}, then: export HF_TOKEN=…",
            )  # fmt: skip


def hub_home(home: str) -> Check:
    """The folder of the hub's downloads."""
    if not home.strip():
        return Check(
            "HF_HOME", False, "it is set and empty", "unset HF_HOME, or: export HF_HOME=$HOME/.cache/huggingface"
        )
    if _placeholder(home):
        return Check("HF_HOME", False, f"'{home}' is a placeholder", "unset HF_HOME, or name a folder of yours")
    path = Path(home)
    nearest = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return Check("HF_HOME", False, f"'{home}' cannot be written", f"sudo chown -R $USER {nearest}, or name another")
    return Check("HF_HOME", True, f"{home} ({gib(shutil.disk_usage(nearest).free)} free)")


def _placeholder(text: str) -> bool:
    return any(each in text.lower() for each in _PLACEHOLDERS)
