from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from noria.deployment import catalogue
from noria.deployment.shapes import config_of_gguf, of_config
from noria.errors import Invalid

KNOWN = catalogue.catalogue()


@pytest.mark.parametrize("key", sorted(KNOWN))
def test_a_known_shape_has_the_published_number_of_parameters(key: str) -> None:
    # The 16-head release of the 405B is published in round numbers only.
    slack = 1e-3 if key == "llama-3.1-405b-mp16" else 0.0
    assert KNOWN[key].shape.parameters == pytest.approx(KNOWN[key].parameters, rel=slack, abs=0)


@pytest.mark.parametrize(
    ("key", "kib"),
    [
        ("qwen2-0.5b", 12), ("qwen3-1.7b", 112), ("llama-3.1-8b", 128), ("llama-3.1-70b", 320), ("llama-3.1-405b", 504),
        ("smollm2-135m", 22.5), ("phi-3-mini-4k", 384), ("bge-m3", 0),
    ],
)  # fmt: skip
def test_cache_of_a_token_in_16_bits(key: str, kib: float) -> None:
    shape = KNOWN[key].shape
    assert 2 * shape.layers * shape.cached == kib * 1024


def test_a_mixture_computes_with_fewer_parameters_than_it_holds() -> None:
    shape = KNOWN["mixtral-8x7b"].shape
    # Published: 46.7 billion in memory, 12.9 of them active; ours leaves the table of 0.13 that is only looked up.
    assert shape.active == pytest.approx(12.9e9 - 0.13e9, rel=0.01)


def test_sliding_windows() -> None:
    gemma = KNOWN["gemma-3-27b"].shape
    assert (gemma.layers, gemma.windowed, gemma.window) == (62, 52, 1024)
    assert KNOWN["mistral-7b-v0.1"].shape.windowed == 32
    assert KNOWN["mistral-7b"].shape.windowed == 0
    # Qwen's configs state a window that is switched off.
    config = {**KNOWN["qwen2.5-7b"].config, "sliding_window": 131072, "use_sliding_window": False}
    assert of_config(config).windowed == 0
    told: list[JsonValue] = ["full_attention", "sliding_attention", "sliding_attention"]
    kinds = {**KNOWN["gemma-2-2b"].config, "num_hidden_layers": 3, "layer_types": told}
    assert of_config(kinds).windowed == 2


# From https://huggingface.co/deepseek-ai/DeepSeek-V2-Lite: 15.7 billion parameters, 2.4 of them active.
DEEPSEEK: dict[str, JsonValue] = {
    "model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16,
    "num_key_value_heads": 16, "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64,
    "num_experts_per_tok": 6, "n_shared_experts": 2, "first_k_dense_replace": 1, "kv_lora_rank": 512,
    "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 102400,
    "max_position_embeddings": 163840, "tie_word_embeddings": False,
}  # fmt: skip


def test_latent_attention_caches_one_vector_for_all_heads() -> None:
    shape = of_config(DEEPSEEK)
    assert shape.parameters == 15_706_484_224
    assert shape.cached == 512 + 64
    assert shape.active == pytest.approx(2.45e9, rel=0.02)
    assert (shape.experts, shape.chosen) == (64, 6)


def test_a_text_config_within_another_is_read() -> None:
    inner = KNOWN["gemma-3-4b"].config
    assert of_config({"model_type": "gemma3", "text_config": dict(inner)}) == of_config(inner)


@pytest.mark.parametrize("name", ["hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size"])
@pytest.mark.parametrize("value", [None, "many", True, -1, 2.5])
def test_a_config_with_a_wrong_width_is_refused_by_its_name(name: str, value: JsonValue) -> None:
    with pytest.raises(Invalid, match=name):
        of_config({**KNOWN["qwen3-8b"].config, name: value})


@pytest.mark.parametrize("name", ["num_hidden_layers", "num_attention_heads", "num_key_value_heads"])
def test_a_model_without_layers_or_heads_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="at least one"):
        of_config({**KNOWN["qwen3-8b"].config, name: 0})


@given(st.integers(1, 8), st.integers(1, 64), st.integers(1, 8), st.booleans(), st.integers(1, 500))
def test_parameters_of_any_small_llama(layers: int, inner: int, heads: int, tied: bool, words: int) -> None:
    hidden = 8 * heads
    config: dict[str, JsonValue] = {
        "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": inner, "vocab_size": words, "tie_word_embeddings": tied,
    }  # fmt: skip
    one = 4 * hidden * hidden + 3 * hidden * inner + 2 * hidden
    assert of_config(config).parameters == layers * one + words * hidden * (1 if tied else 2) + hidden


def test_gguf_metadata_give_the_same_shape() -> None:
    fields: dict[str, str | float | bool] = {
        "general.architecture": "qwen3", "qwen3.embedding_length": 2048, "qwen3.block_count": 28,
        "qwen3.feed_forward_length": 6144, "qwen3.attention.head_count": 16, "qwen3.attention.head_count_kv": 8,
        "qwen3.attention.key_length": 128, "qwen3.context_length": 40960,
    }  # fmt: skip
    assert of_config(config_of_gguf(fields, 151936, tied=True)) == KNOWN["qwen3-1.7b"].shape
    with pytest.raises(Invalid, match="architecture"):
        config_of_gguf({}, 10, tied=True)


@pytest.mark.parametrize(
    ("name", "key", "stated"),
    [
        ("Qwen/Qwen2-0.5B-Instruct-AWQ", "qwen2-0.5b", "awq"), ("Qwen/Qwen2-0.5B-Instruct", "qwen2-0.5b", None),
        ("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "qwen2.5-0.5b", None), ("Qwen/Qwen3-14B", "qwen3-14b", None),
        ("meta-llama/Llama-3-8b", "llama-3-8b", None), ("meta-llama/Meta-Llama-3-8B", "llama-3-8b", None),
        ("google/gemma-2-9b-it", "gemma-2-9b", None),
        ("microsoft/Phi-3-medium-128k-instruct", "phi-3-medium-128k", None),
        ("microsoft/Phi-3-mini-4k-instruct", "phi-3-mini-4k", None), ("bert-base-uncased", "bert-base-uncased", None),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b", None), ("deepvk/USER-bge-m3", "user-bge-m3", None),
        ("BAAI/bge-reranker-v2-m3", "bge-reranker-v2-m3", None), ("smollm2-135m-instruct", "smollm2-135m", None),
        ("sismetanin/rubert-ru-sentiment-rusentiment", "rubert-sentiment", None),
        ("LLAMA-3.1-70B", "llama-3.1-70b", None),
    ],
)  # fmt: skip
def test_models_are_found_by_every_name_that_people_use(name: str, key: str, stated: str | None) -> None:
    found = catalogue.find(name)
    assert found is not None
    assert (found[0].key, found[1]) == (key, stated)


def test_what_is_not_there_is_not_found() -> None:
    assert catalogue.find("gpt-4") is None
    assert catalogue.find("") is None


def test_what_the_catalogue_says_beside_the_shapes() -> None:
    assert {use for each in KNOWN.values() for use in each.uses} == set(catalogue.USES)
    assert KNOWN["gemma-2-9b"].roles == ("user", "assistant")
    assert KNOWN["llama-3.1-8b"].gated
    assert set(KNOWN["llama-3.1-8b"].languages) == {"en", "de", "fr", "it", "pt", "hi", "es", "th"}
    assert KNOWN["llama-3.1-8b"].shape.context == 131072
    assert not KNOWN["qwen3-14b"].gated


def test_gguf_metadata_of_latent_attention() -> None:
    fields: dict[str, str | float | bool] = {
        "general.architecture": "deepseek2", "deepseek2.embedding_length": 2048, "deepseek2.block_count": 27,
        "deepseek2.feed_forward_length": 10944, "deepseek2.attention.head_count": 16,
        "deepseek2.attention.head_count_kv": 1, "deepseek2.context_length": 163840, "deepseek2.expert_count": 64,
        "deepseek2.expert_used_count": 6, "deepseek2.expert_shared_count": 2,
        "deepseek2.expert_feed_forward_length": 1408, "deepseek2.leading_dense_block_count": 1,
        "deepseek2.attention.kv_lora_rank": 512, "deepseek2.rope.dimension_count": 64,
        "deepseek2.attention.key_length": 576, "deepseek2.attention.key_length_mla": 192,
        "deepseek2.attention.value_length_mla": 128,
    }  # fmt: skip
    found, theirs = of_config(config_of_gguf(fields, 102400, tied=False)), of_config(DEEPSEEK)
    assert (found.parameters, found.cached, found.active) == (theirs.parameters, theirs.cached, theirs.active)
