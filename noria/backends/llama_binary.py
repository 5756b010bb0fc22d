"""A `llama-server` of the user's own, such as one built for a GPU, in place of the one that xllamacpp brings."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from noria.backends.llamacpp_server import ServerConfig
from noria.backends.served_process import LOOPBACK, START_SECONDS, end, launch, port_of, wait
from noria.errors import Invalid, NoriaError, Unavailable
from noria.settings import EngineSettings, child_environment

HELP_SECONDS: Final = 60.0
"""For the first answer of a program that loads a GPU's libraries."""
_CHOSEN: Final = re.compile(r"--flash-attn\s+\S*\bauto\b", re.IGNORECASE)
"""Newer builds are told on, off or auto; older ones take the bare flag."""


def start(settings: EngineSettings, config: ServerConfig, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A ready server and its address; raises Unavailable without the program or its port, or when it fails."""
    program = str(settings.program)
    port = port_of(settings.port)
    line = command(settings, config, port, _help(program))
    process = launch(line, child_environment(LLAMA_API_KEY=config.key), log)
    url = f"http://{LOOPBACK}:{port}"
    try:
        wait("llama-server", process, f"{url}/health", settings.start_limit or START_SECONDS, log)
    except NoriaError:
        end(process, 0.0)
        raise
    return process, url


def command(settings: EngineSettings, config: ServerConfig, port: int, told: str) -> list[str]:
    """The command line; `told` is what the program says of itself with --help, since its flags have changed."""
    out = [
        *(str(settings.program), "-m", config.model, "-a", config.alias, "--host", LOOPBACK, "--port", str(port)),
        # The context is shared out among the slots.
        *("-np", str(config.slots), "-c", str(config.slots * config.context), "-t", str(config.threads), "--metrics"),
    ]
    if settings.device != "auto":
        out += ["-ngl", "0" if settings.device == "cpu" else "999"]
    if _CHOSEN.search(told):
        out += ["-fa", "auto"]
    elif "--flash-attn" in told and settings.device == "cuda":
        out += ["-fa"]
    for flag, values in (("--no-webui", ()), ("--slots", ()), ("--cache-ram", ("0",))):
        if re.search(rf"{flag}\b", told):
            out += [flag, *values]
    if config.adapters:
        out += _adapters(config.adapters, told)
    return [*out, *settings.flags]


def _adapters(files: Sequence[str], told: str) -> list[str]:
    """Adapters at scale 0: each request names those that it wants."""
    if "--lora-scaled" not in told:
        raise Invalid("this llama-server takes no adapters at a scale", "use a newer one, or leave program out")
    if re.search(r"--lora-scaled\s+FNAME:SCALE", told):
        return ["--lora-scaled", ",".join(f"{file}:0.0" for file in files)]
    return [part for file in files for part in ("--lora-scaled", file, "0.0")]


def _help(program: str) -> str:
    if shutil.which(program) is None:
        raise Unavailable(f"'{program}' is not there", "correct `program`, or leave it out for the one in xllamacpp")
    try:
        found = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=HELP_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"'{program}' does not run: {error}", "is it built for this machine?") from error
    return found.stdout + found.stderr
