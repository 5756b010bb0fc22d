"""EleutherAI's lm-evaluation-harness against an OpenAI-compatible URL."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from pydantic import JsonValue

from noria.backends.chat_client import on_this_machine
from noria.backends.harness import Found, Target, home, watched
from noria.errors import Conflict, Invalid, NotFound, Unavailable
from noria.ports import Progress
from noria.settings import known
from noria.stats.intervals import normal, of_share
from noria.types import Scored

NAME: Final = "lm-eval"
VERSION: Final = "0.4.13"
STEPS: Final = ((f"lm-eval[api]=={VERSION}", "transformers==5.23.0"),)
"""transformers for tokenizers alone: log-likelihood needs the model's own."""
_BY_LIKELIHOOD: Final = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
_CONFIDENCE: Final = 0.95


def run(
    target: Target,
    tasks: Sequence[str],
    include: Path,
    out: Path,
    progress: Progress,
    tokenizer: Callable[[], Path | None],
    *,
    limit: int | None = None,
) -> Found:
    """Run local tasks, all of those in `include` unless some are named; the harness's files come to lie in `out`.

    `tokenizer` gives the folder of the model's own one; it is asked for only where log-likelihood is wanted.

    Raises NotFound for a task that is not there, Invalid where log-likelihood is wanted without a tokenizer, Conflict
    where the server gives no log-probabilities of prompts (all before any work), Unavailable where the harness fails.
    """
    kinds = output_types(include)
    for task in tasks:
        if task not in kinds:
            raise NotFound(f"there is no task '{task}' in '{include}'", known(task, kinds))
    wanted = list(tasks) or sorted(kinds)
    by_likelihood = [task for task in wanted if kinds[task] in _BY_LIKELIHOOD]
    generated = [task for task in wanted if task not in by_likelihood]
    if by_likelihood:
        check_likelihood(target, by_likelihood[0])
    words = tokenizer() if by_likelihood else None
    if by_likelihood and words is None:
        raise Invalid(f"task '{by_likelihood[0]}' needs the model's own tokenizer", "name its folder: --tokenizer DIR")
    program = str(home(NAME, VERSION, STEPS, "lm_eval.txt", progress) / "lm_eval")
    settings: dict[str, JsonValue] = {"tasks": [*wanted], "include": include.name, "limit": limit}
    for part, names in (("chat", generated), ("likelihood", by_likelihood)):
        if names:
            model = _chat(target) if part == "chat" else _likelihood(target, words or include)
            argv = [program, "run", *model, "--include_path", str(include), "--tasks", ",".join(names)]
            argv += ["--output_path", str(out / part), "--log_samples"]
            argv += ["--limit", str(limit)] if limit is not None else []
            # Local files of a task are named relative to its own folder.
            watched(argv, _environment(target, out), include, out / "log", progress, f"{NAME} {part}")
    scores = read(out)
    files = {f"{file.parent.parent.name}-{file.name.partition('_20')[0]}{file.suffix}": file for file in _results(out)}
    return Found(
        {name: score for name, score in scores.items() if score is not None},
        files,
        settings,
        tuple(
            f"'{name}' has neither a standard error nor samples, so no interval: left out"
            for name, score in scores.items()
            if score is None
        ),
    )


def output_types(include: Path) -> dict[str, str]:
    """Tasks of a folder by name, with lm-eval's `output_type`; raises NotFound where there are none."""
    found: dict[str, str] = {}
    for file in sorted([*include.rglob("*.yaml"), *include.rglob("*.yml")]):
        told = yaml.load(file.read_text(), Loader=_Loader)
        if isinstance(told, dict) and isinstance(told.get("task"), str):
            found[told["task"]] = str(told.get("output_type", "generate_until"))
    if not found:
        raise NotFound(f"there are no tasks of lm-eval in '{include}'", "name the folder of their YAML: --include DIR")
    return found


def check_likelihood(target: Target, task: str) -> None:
    """Raise Conflict where the server does not give log-probabilities of a prompt's own tokens."""
    body = {"model": target.model, "prompt": "one two three", "max_tokens": 1, "echo": True, "logprobs": 1}
    headers = {"authorization": f"Bearer {target.key}", "x-noria-train": "no"}
    try:
        answer = httpx.post(
            f"{target.url}/completions", json={**body, "temperature": 0}, headers=headers, timeout=120,
            trust_env=not on_this_machine(target.url),
        )  # fmt: skip
    except httpx.HTTPError as error:
        raise Unavailable(f"'{target.url}' does not answer: {error}", "is it up? noria status") from error
    if not _echoed(answer):
        raise Conflict(
            f"task '{task}' needs log-probabilities of prompts, and what serves '{target.model}' gives none",
            "serve it with vLLM or Transformers (llama.cpp's server has no echo), or take a task that generates",
        )


def read(out: Path) -> dict[str, Scored | None]:
    """Scores of all results below a folder, by `lm-eval.TASK.METRIC`; a metric with several filters names them too.

    None stands for a number of which nobody knows how far it may be off.
    """
    found: dict[str, Scored | None] = {}
    for file in sorted(out.rglob("results_*.json")):
        told = json.loads(file.read_text())
        samples = {task: _samples(file.parent, task) for task in told["results"]}
        for task, values in told["results"].items():
            metrics = [name for name, value in values.items() if "," in name and isinstance(value, int | float)]
            plain = [name for name in metrics if not name.partition(",")[0].endswith("_stderr")]
            for name in plain:
                metric, _, filtered = name.partition(",")
                several = sum(each.partition(",")[0] == metric for each in plain) > 1
                rows = int(told["n-samples"][task]["effective"])
                higher = bool(told["higher_is_better"].get(task, {}).get(metric, True))
                stderr = values.get(f"{metric}_stderr,{filtered}")
                score = _scored(values[name], stderr, rows, samples[task].get((metric, filtered), []), higher)
                found[f"{NAME}.{task}.{metric}{f'.{filtered}' if several else ''}"] = score
    if not found:
        raise Unavailable(f"{NAME} left no results in '{out}'", f"read {out / 'log'}")
    return found


def _scored(value: float, stderr: Any, rows: int, samples: Sequence[float], higher: bool) -> Scored | None:
    """Wilson's interval where every sample is 0 or 1, else a normal one from the standard error."""
    if samples and {*samples} <= {0.0, 1.0}:
        low, high = of_share(round(sum(samples)), len(samples), _CONFIDENCE)
    elif isinstance(stderr, int | float) and math.isfinite(stderr):
        half = normal(_CONFIDENCE) * stderr
        low, high = value - half, value + half
    else:
        return None
    return Scored(value=round(value, 6), low=low, high=high, rows=rows, higher_is_better=higher)


def _samples(folder: Path, task: str) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for file in folder.glob(f"samples_{task}_*.jsonl"):
        for line in file.read_text().splitlines():
            told = json.loads(line)
            for metric in told.get("metrics", []):
                value = told.get(metric)
                if isinstance(value, int | float):
                    found.setdefault((metric, told.get("filter", "none")), []).append(float(value))
    return found


def _results(out: Path) -> list[Path]:
    return sorted(out.rglob("results_*.json")) + sorted(out.rglob("samples_*.jsonl"))


def _chat(target: Target) -> list[str]:
    # store: false keeps what a harness asks out of training data.
    return [
        "--model", "local-chat-completions", "--apply_chat_template", "--gen_kwargs", "store=False", "--model_args",
        f"model={target.model}", f"base_url={target.url}/chat/completions", "num_concurrent=2", "max_retries=3",
    ]  # fmt: skip


def _likelihood(target: Target, tokenizer: Path) -> list[str]:
    return [
        "--model", "local-completions", "--model_args", f"model={target.model}", f"base_url={target.url}/completions",
        "tokenizer_backend=huggingface", f"tokenizer={tokenizer}", "num_concurrent=1", "max_length=512",
    ]  # fmt: skip


def _environment(target: Target, out: Path) -> Mapping[str, str]:
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(out / "hub")}
    return {**offline, "OPENAI_API_KEY": target.key, "TOKENIZERS_PARALLELISM": "false"}


def _echoed(answer: httpx.Response) -> bool:
    try:
        told = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
        return answer.status_code == 200 and len(told) > 2
    except (ValueError, KeyError, IndexError, TypeError):
        return False


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's tasks, whose tag `!function` names code that is not loaded here."""


_Loader.add_constructor("!function", lambda loader, node: None)
