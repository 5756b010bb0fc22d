"""What engines can do, how they are asked, what they answer and how busy they are."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True, slots=True)
class Caps:
    """What an engine can do. Code asks this, never the engine's name."""

    lora: bool = False
    """Serves LoRA adapters beside the base model."""
    hot: bool = False
    """Takes and drops LoRA adapters while it runs (`noria.ports.Swaps`)."""
    models: bool = False
    """Serves whole trained models beside it, each by a server of its own."""
    exact_tokens: bool = False
    """Takes token ids as a prompt and returns the next token's id."""
    batch_invariant: bool = False
    """A greedy answer does not depend on which other answers are computed beside it."""
    prompt_logprobs: bool = False
    """Gives the log-probability of a text that it did not write."""
    heads: bool = False
    """Serves heads that name classes, with probabilities, beside its encoder; it writes no text."""
    choice: str = ""
    """How a request holds it to one of some classes (`noria.classes.among`); empty where it cannot."""
    text: bool = True
    """Writes text; others give vectors, ranks or classes."""
    schema: bool = True
    """Holds an answer to a JSON schema, token by token."""
    logprobs: bool = True
    """Tells the likeliest tokens at each place of an answer."""
    bounded: bool = True
    """Refuses a prompt that is longer than its context; others fail on one, and may fail from then on."""
    tools: bool = False
    """Calls tools in OpenAI's form, where it is started with the parser of its model."""
    embeddings: bool = False
    """Answers `/v1/embeddings`, for a model that makes vectors."""
    rerank: bool = False
    """Answers `/v1/rerank`."""
    classify: bool = False
    """Answers `/v1/classify`, for a model with classes of its own."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an engine is, as its own metrics tell; None for what they do not.

    `waiting` and `running` are requests, `first_token_seconds` and `token_seconds` (between two tokens) means over the
    engine's life, `cache` the share of its KV cache in use, in [0, 1], the tokens totals over its life.
    """

    waiting: float | None = None
    running: float | None = None
    first_token_seconds: float | None = None
    token_seconds: float | None = None
    cache: float | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """JSON of `schema`, with so many likely `choices` of each token; `reuse` what is computed, which may round.

    `among` holds the answer to one of these classes, or to `several` of them, where the engine's `caps.choice` can.
    """

    schema: dict[str, JsonValue] | None = None
    choices: int = 0
    reuse: bool = False
    among: tuple[str, ...] = ()
    several: bool = False


Choices = tuple[tuple[str, float], ...]
"""The token that was taken, then the likeliest ones at its place: texts with log-probabilities in nats."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer of an engine, with its token counts where the engine gives them; `tokens` where a form wants them."""

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    tokens: tuple[Choices, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """One streamed answer as a client measured it: seconds since its request was sent; None for what is not told.

    `first` is when its first text came, `tokens` are those of the answer as the engine (or its tokenizer) counts them,
    `cached` those of the prompt that it did not read anew. `error` says why there is none.
    """

    seconds: float
    first: float | None = None
    tokens: int | None = None
    prompt_tokens: int | None = None
    cached: int | None = None
    finish: str | None = None
    text: str = ""
    vectors: int = 0
    error: str = ""
