"""Where the model of an outside engine lies: a folder in Hugging Face's layout, a GGUF file, or the hub's own cache."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from noria.backends import encoder_model, llamacpp
from noria.errors import Invalid, NotFound, Unavailable
from noria.settings import EngineSettings, environment
from noria.types import Ref

_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""A model on the hub: OWNER/NAME."""
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.gguf")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TEXTS: Final = ("*.json", "*.jinja", "*.txt", "*.model")


def named(settings: EngineSettings) -> str:
    """The `model` of the settings; raises Invalid without one."""
    if settings.model is None:
        raise Invalid(f"engines of kind '{settings.kind}' that noria launches need a model", 'model = "FOLDER"')
    return settings.model


def is_gguf(model: str) -> bool:
    """Whether this names a GGUF file, packaged or by its path."""
    return model in llamacpp.PACKAGED or Path(model).suffix == ".gguf"


def folder(settings: EngineSettings) -> Path:
    """The folder that an outside engine is given, absolute.

    A GGUF file is unpacked once into noria's part of the user's cache (half a gigabyte and 20 s for 135 million
    parameters), into the same weights that training starts from. Raises Invalid, NotFound, Unavailable.
    """
    model = named(settings)
    if is_gguf(model):
        from noria.backends.peft_trainer import PeftTrainer

        return PeftTrainer(cache() / "models").tokenizer(llamacpp.model_path(settings)).resolve()
    if model in encoder_model.PACKAGED:
        return encoder_model.encoder_folder(model).resolve()
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise Invalid(
                f"the model folder '{model}' has no config.json", "give a folder as save_pretrained writes it"
            )
        return path.resolve()
    if _ID.fullmatch(model):
        return _cached(model)
    raise NotFound(f"there is no model '{model}'", "a folder, a .gguf file, a known name, or OWNER/NAME on the hub")


def hub_cache() -> Path:
    """Where Hugging Face's libraries keep what they have fetched.

    Raises Invalid where HF_HOME or HF_HUB_CACHE names no folder, as an empty or forgotten placeholder does.
    """
    for variable, below in (("HF_HUB_CACHE", ""), ("HF_HOME", "hub")):
        value = environment(variable)
        if value is None:
            continue
        if not value.strip() or not Path(value).expanduser().is_dir():
            raise Invalid(
                f"{variable} is '{value}', which is no folder", f"export {variable}=FOLDER, or unset {variable}"
            )
        return Path(value).expanduser() / below
    return Path(environment("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface" / "hub"


def cache() -> Path:
    """Noria's folder in the user's cache."""
    return Path(environment("XDG_CACHE_HOME") or Path.home() / ".cache") / "noria"


def _cached(model: str) -> Path:
    """The folder of a model that was fetched from the hub; noria itself fetches nothing while an engine starts."""
    place = hub_cache() / f"models--{model.replace('/', '--')}"
    try:
        commit = (place / "refs" / "main").read_text().strip()
    except OSError:
        commit = ""
    found = place / "snapshots" / commit
    if not commit or not (found / "config.json").is_file():
        token = "" if environment("HF_TOKEN") else "; a gated one wants HF_TOKEN, and its licence accepted on its page"
        raise Unavailable(f"model '{model}' is not on this machine", f"fetch it once: hf download {model}{token}")
    if not any(file for pattern in _WEIGHTS for file in found.glob(pattern)):
        raise Unavailable(f"model '{model}' has no weights in {found}", f"fetch the rest: hf download {model}")
    return found.resolve()


def digest_of(model: Path) -> str:
    """SHA-256 of all files that change an answer, 16 hexadecimal digits.

    A file in the hub's cache is a link to one that is named by its content, and is not read again.
    """
    whole = hashlib.sha256()
    for file in sorted({file for pattern in (*_WEIGHTS, *_TEXTS) for file in model.glob(pattern)}):
        content = file.resolve().name
        if not _SHA256.fullmatch(content):
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
        whole.update(f"{file.name} {content}\n".encode())
    return whole.hexdigest()[:16]


def name_of(settings: EngineSettings) -> str:
    """What the model is called: its known name, or the last part of its path or id."""
    model = named(settings)
    if model in llamacpp.PACKAGED or model in encoder_model.PACKAGED:
        return model
    return Path(model).stem if is_gguf(model) else Path(model).name


def precision(settings: EngineSettings, model: Path) -> str:
    """In which precision it is served: as the settings say, else as its folder does.

    Raises Invalid for a folder whose config.json cannot be read.
    """
    if settings.quantization or settings.dtype != "auto":
        return settings.quantization or settings.dtype
    try:
        config = json.loads((model / "config.json").read_text())
        method = (config.get("quantization_config") or {}).get("quant_method")
    except (OSError, ValueError, AttributeError) as error:
        raise Invalid(
            f"the model folder '{model}' has no readable config.json", "fetch or write the model again"
        ) from error
    return str(method or config.get("dtype") or config.get("torch_dtype") or "unknown")


def lora_rank(adapter: Ref, folder: Path) -> int:
    """The rank of a LoRA in PEFT's layout; raises Invalid for a folder that is none."""
    config: Mapping[str, Any]
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
        rank = int(config["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(
            f"adapter '{adapter}' has no readable 'adapter_config.json'", f"train it again; its folder is {folder}"
        ) from error
    if not (folder / "adapter_model.safetensors").is_file():
        raise Invalid(f"adapter '{adapter}' has no 'adapter_model.safetensors'", f"train it again; it is in {folder}")
    return rank
