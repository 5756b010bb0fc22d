"""What an encoder's server takes and gives: OpenAI's embeddings and chat, Cohere's rerank, vLLM's classes."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from noria import classes, prompts
from noria.backends.encoder_bert import Array
from noria.errors import Invalid, NoriaError
from noria.types import Message

MOST: Final = 2048
"""Texts of one request."""
LIKELY: Final = 0.5
"""Probability from which a label holds where several may."""
_LEAST: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Chosen:
    """Probabilities of the labels for one text; they sum to 1 unless `several` may hold."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    several: bool

    @property
    def answer(self) -> str:
        """The likeliest label, or all likely ones; never none."""
        pairs = list(zip(self.labels, self.probabilities, strict=True))
        best = max(pairs, key=lambda pair: pair[1])[0]
        if not self.several:
            return best
        return classes.join([label for label, each in pairs if each >= LIKELY]) or best

    @property
    def logprob(self) -> float:
        """Log-probability that exactly this answer is right, in nats; labels count as independent."""
        held = set(classes.split(self.answer)) if self.several else {self.answer}
        pairs = zip(self.labels, self.probabilities, strict=True)
        if not self.several:
            return math.log(max(_LEAST, *(each for label, each in pairs if label in held)))
        return math.fsum(math.log(max(_LEAST, each if label in held else 1 - each)) for label, each in pairs)


def read(data: bytes) -> dict[str, Any]:
    """A JSON object; raises Invalid."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}", 'send {"input": "…"}') from error
    if not isinstance(body, dict):
        raise Invalid("the body is no JSON object", 'send {"input": "…"}')
    return body


def inputs(body: Mapping[str, Any]) -> list[Any]:
    """What `input` holds: texts, or lists of token ids; raises Invalid."""
    given = body.get("input")
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if isinstance(given[0], int):
            return [given]
        if len(given) > MOST:
            raise Invalid(f"there are {len(given)} texts; the most is {MOST}", "send fewer at a time")
        if all(isinstance(each, str | list) for each in given):
            return given
    raise Invalid("'input' is missing, empty or neither a text nor a list of texts", 'send "input": "…"')


def ids(given: Sequence[object], size: int, longest: int) -> list[int]:
    """A text as token ids; raises Invalid for what are none."""
    found = [each for each in given if isinstance(each, int) and 0 <= each < size]
    if not found or len(found) < len(given):
        raise Invalid(f"'input' holds what is no token id of this model (0 to {size - 1})", "send texts")
    if len(found) > longest:
        raise Invalid(f"a text of {len(found)} tokens exceeds the context of {longest}", "shorten the text")
    return found


def names(body: Mapping[str, Any]) -> list[str]:
    """The classes that a request gives, if it does."""
    given = body.get("classes") or []
    if not isinstance(given, list) or not all(isinstance(each, str) and each for each in given):
        raise Invalid("'classes' is no list of names", 'send "classes": ["yes", "no"]')
    return given


def asked(body: Mapping[str, Any]) -> str:
    """The text of a conversation; raises Invalid for what an encoder cannot be asked for."""
    for name in ("tools", "response_format"):
        if body.get(name):
            raise Invalid(f"an encoder answers with a class and nothing else: it takes no '{name}'", "leave it out")
    if body.get("n") not in (None, 1):
        raise Invalid("an encoder has one answer: 'n' is 1", "leave it out")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise Invalid("'messages' is missing, empty or no list of messages", "send one with role user")
    turns = [
        Message(role="assistant" if each.get("role") == "assistant" else "user", content=text)
        for each in messages
        if each.get("role") in ("user", "assistant") and (text := prompts.text_of(each.get("content")))
    ]
    if not turns:
        raise Invalid("no message of the user says anything", "send one with role user")
    return prompts.plain(turns)


def ranked(body: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Query and documents; raises Invalid."""
    query, given = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not query:
        raise Invalid("'query' is missing, empty or no text", "send query and documents")
    if not isinstance(given, list) or not given or len(given) > MOST:
        raise Invalid(f"'documents' is no list of 1 to {MOST} texts", "send query and documents")
    found = [each.get("text") if isinstance(each, dict) else each for each in given]
    documents = [each for each in found if isinstance(each, str)]
    if len(documents) < len(found):
        raise Invalid("a document is neither a text nor an object with one", 'send {"text": "…"}')
    return query, documents


def embeddings(model: str, vectors: Array, body: Mapping[str, Any], count: int) -> dict[str, Any]:
    """OpenAI's answer; raises Invalid for other dimensions than the encoder has."""
    if body.get("dimensions") not in (None, vectors.shape[1]):
        raise Invalid(f"this encoder's vectors have {vectors.shape[1]} dimensions", "leave 'dimensions' out")
    packed = body.get("encoding_format") == "base64"
    return {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": number, "embedding": _packed(vector) if packed else vector}
            for number, vector in enumerate(vectors)
        ],
        "usage": _usage(count),
    }


def _packed(vector: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()


def classified(model: str, chosen: Sequence[Chosen], count: int) -> dict[str, Any]:
    """The answer of vLLM, with the score of each label, best first, as infinity gives it."""
    return {
        "object": "list",
        "model": model,
        "data": [
            {
                "index": number,
                "label": each.answer,
                "probs": list(each.probabilities),
                "num_classes": len(each.labels),
                "logprob": each.logprob,
                "scores": [{"label": label, "score": score} for label, score in _best(each)],
            }
            for number, each in enumerate(chosen)
        ],
        "usage": _usage(count),
    }


def ranking(
    model: str, documents: Sequence[str], scores: Sequence[float], body: Mapping[str, Any], how: str, count: int = 0
) -> dict[str, Any]:
    """Cohere's answer; `scored_by` says what the scores are: a cross-encoder's in [0, 1], or cosines in [-1, 1]."""
    order = sorted(range(len(documents)), key=lambda number: (-scores[number], number))
    top = body.get("top_n")
    if top is not None and (not isinstance(top, int) or top < 1):
        raise Invalid(f"'top_n' is '{top}'", "send a whole number of at least 1")
    shown = bool(body.get("return_documents"))
    return {
        "model": model,
        "scored_by": how,
        "results": [
            {
                "index": number,
                "relevance_score": scores[number],
                **({"document": {"text": documents[number]}} if shown else {}),
            }
            for number in order[:top]
        ],
        "usage": _usage(count),
    }


def completion(model: str, chosen: Chosen | None, body: Mapping[str, Any], count: int) -> dict[str, Any]:
    """A chat completion whose content is the class, as one token; empty where no class is known."""
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": chosen.answer if chosen else ""},
        "finish_reason": "stop",
    }
    if body.get("logprobs"):
        choice["logprobs"] = {"content": [_token(chosen, body)] if chosen else []}
    written = 1 if chosen else 0
    return {
        "id": f"chatcmpl-{model}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [choice],
        "usage": {"prompt_tokens": count, "completion_tokens": written, "total_tokens": count + written},
    }


def _token(chosen: Chosen, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer as a token with the likeliest others beside it; sets of labels have no others that could be listed."""
    answer, logprob = chosen.answer, chosen.logprob
    most = int(body.get("top_logprobs") or 0)
    top = [(answer, logprob)]
    if not chosen.several:
        top = [(label, math.log(max(_LEAST, each))) for label, each in _best(chosen)]
    said = [{"token": token, "logprob": each, "bytes": None} for token, each in top[:most]]
    return {"token": answer, "logprob": logprob, "bytes": None, "top_logprobs": said}


def events(whole: Mapping[str, Any], body: Mapping[str, Any]) -> bytes:
    """The same completion as server-sent events: the class in one piece."""
    choice = whole["choices"][0]
    head = {name: value for name, value in whole.items() if name not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    said = {"index": 0, "delta": dict(choice["message"]), "finish_reason": None}
    if "logprobs" in choice:
        said["logprobs"] = choice["logprobs"]
    chunks = [
        {**head, "choices": [said]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
    ]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": whole["usage"]})
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def models(model: str) -> dict[str, Any]:
    """The list of models."""
    return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "noria"}]}


def fault(error: NoriaError) -> bytes:
    """An error in OpenAI's form."""
    kind = "exceed_context_size_error" if "exceeds the" in error.fact else error.code
    said = {"message": error.fact, "type": kind, "code": error.status, "hint": error.hint or None}
    return orjson.dumps({"error": said})


def refused(message: str) -> bytes:
    """What somebody without the key is told."""
    return orjson.dumps({"error": {"message": message, "type": "authentication_error", "code": 401}})


def _best(chosen: Chosen) -> list[tuple[str, float]]:
    pairs = zip(chosen.labels, chosen.probabilities, strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])


def _usage(count: int) -> dict[str, int]:
    return {"prompt_tokens": count, "total_tokens": count}
