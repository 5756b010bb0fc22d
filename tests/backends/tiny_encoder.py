"""A tiny random BERT, made on the spot, as a folder in Hugging Face's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TEXT = "which river flows through vienna the danube aid is confirmed not yes no word say number please a b c d"
WORDS = TEXT.split()
WIDTH, INNER, LAYERS = 32, 64, 2


def tiny_encoder(folder: Path, *, outputs: int = 0, seed: int = 0) -> Path:
    """With `outputs` a sequence classifier, such as a cross-encoder with one."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "?", "."))}
    config = {
        "model_type": "bert", "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "intermediate_size": INNER, "max_position_embeddings": 300, "type_vocab_size": 2, "pad_token_id": 0,
        "vocab_size": len(vocabulary), "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "architectures": ["BertForSequenceClassification" if outputs else "BertModel"],
    }  # fmt: skip
    if outputs:
        config["id2label"] = {str(number): f"LABEL_{number}" for number in range(outputs)}
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (len(vocabulary), WIDTH),
        "embeddings.position_embeddings.weight": (300, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    linear: dict[str, tuple[int, int]] = {}
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        linear |= {f"{name}.attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        linear |= {f"{name}.attention.output.dense": (WIDTH, WIDTH), f"{name}.intermediate.dense": (INNER, WIDTH)}
        linear |= {f"{name}.output.dense": (WIDTH, INNER)}
    if outputs:
        linear |= {"pooler.dense": (WIDTH, WIDTH), "classifier": (outputs, WIDTH)}
    tensors = {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    for name, shape in linear.items():
        tensors[f"{name}.weight"] = random.normal(0, 0.3, shape).astype(np.float32)
        tensors[f"{name}.bias"] = random.normal(0, 0.1, shape[0]).astype(np.float32)
    norms = ["embeddings"] + [
        f"encoder.layer.{n}.{part}" for n in range(LAYERS) for part in ("attention.output", "output")
    ]
    for name in norms:
        tensors[f"{name}.LayerNorm.weight"] = np.ones(WIDTH, np.float32)
        tensors[f"{name}.LayerNorm.bias"] = np.zeros(WIDTH, np.float32)
    prefix = "bert." if outputs else ""
    named = {name if name.startswith("classifier") else prefix + name: each for name, each in tensors.items()}
    save_file(named, folder / "model.safetensors")
    special = [
        {
            "id": number,
            "content": word,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for word, number in list(vocabulary.items())[:4]
    ]
    ends = [{"SpecialToken": {"id": word, "type_id": 0}} for word in ("[CLS]", "[SEP]")]
    pair = [ends[0], {"Sequence": {"id": "A", "type_id": 0}}, ends[1]]
    pair += [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    tokens = {word: {"id": word, "ids": [vocabulary[word]], "tokens": [word]} for word in ("[CLS]", "[SEP]")}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "decoder": None,
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": pair[:3], "pair": pair, "special_tokens": tokens},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder
