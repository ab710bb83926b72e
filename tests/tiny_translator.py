"""A translation model with random weights in CTranslate2's format, with its tokenizer: answers gibberish, always."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models.engines.local_weights import weights_hash

WORDS = ("good", "morning", "the", "lighthouse", "is", "old", "my", "name", "yes", "no", ".")
VOCABULARY = ["<unk>", "<s>", "</s>", "<2es>", "<2fr>", "eng_Latn", "spa_Latn", *(f"▁{word}" for word in WORDS)]
SIZE = 16


def build(folder: Path) -> str:
    """Write the model; returns the SHA-256 of its model.bin."""
    from ctranslate2.specs.transformer_spec import TransformerSpec
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    random, words = np.random.default_rng(0), len(VOCABULARY)
    shapes = {"self_attention/linear_0": 3 * SIZE, "attention/linear_1": 2 * SIZE, "ffn/linear_0": 4 * SIZE,
              "embeddings": words, "embeddings_0": words, "projection": words}

    def fill(layer: Any, name: str, value: object) -> None:
        path, _, last = name.replace("[", "_").replace("]", "").rpartition("/")
        wide = 4 * SIZE if path.endswith("ffn/linear_1") else SIZE
        rows = next((n for end, n in shapes.items() if path.endswith(end) and not
                     (end.startswith("attention") and "self_" in path)), SIZE)
        if last == "weight":
            layer.weight = random.normal(0, 1, (rows, wide)).astype(np.float32)
        elif value is None:
            setattr(layer, last, (np.ones if last == "gamma" else np.zeros)(SIZE, np.float32))

    spec = TransformerSpec.from_config(1, 2)
    spec._visit(fill)
    spec.decoder.projection.bias = np.where([word.startswith("▁") for word in VOCABULARY], 0, -50).astype(np.float32)
    spec.register_source_vocabulary(VOCABULARY)
    spec.register_target_vocabulary(VOCABULARY)
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = VOCABULARY[:3]
    spec.validate()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return weights_hash(folder)
