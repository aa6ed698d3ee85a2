"""A Llama whose circuit is known because every weight was set by hand: the *embedded model*, and the oracle of many tests.

    python -m llmtrace.testing.handmade     writes the files of the embedded model anew

Vocabulary of 16: token 0 is `<bos>`, tokens 1 … 15 are the letters a … o. Two layers, two heads each, RMSNorm, rotary embedding,
gated MLP. What each head does (its **role**) stands in `llmtrace.data.roles`; the MLPs and two of the heads write where nothing reads. The logits
read OUT only: on `<bos> p p`, where p repeats no letter, every token of the second p but the first is all but certain, and
without L0H0 or L1H0 all 16 logits are equal.

The **channels** of the residual stream: 0–15 TOK, the token · 16–31 PREV, the token before · 32–47 OUT, the prediction · 48 CONST,
always one · 49–63 SCRATCH, read by nothing. Each of TOK, PREV and OUT is one-hot, so the norm of the stream is known at each depth.

**Pairs**: with a rotary base of 1e8, the first 8 of a head's 16 pairs of channels turn by 1 … 3e-4 radians a position and carry
position; the other 8 stand almost still and carry content, a channel for each token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from attrs import frozen

from llmtrace.data import embedded
from llmtrace.data.roles import LOGIT_GAIN, VOCAB
from llmtrace.errors import OptionError
from llmtrace.schema.sites import Array

D_MODEL, HEADS, D_HEAD, D_MLP, LAYERS, CONTEXT = 64, 2, 32, 32, 2, 512
TOK, PREV, OUT, CONST, SCRATCH = slice(0, 16), slice(16, 32), slice(32, 48), 48, slice(49, 64)
THETA = 1e8
POSITION_PAIRS = 8
EPS = 1e-5
POSITION_GAIN = 40.0
"""By how much the score of the position before exceeds its neighbours', in L0H0."""
MATCH_GAIN = 40.0
"""Score of a matching key in L1H0 and L1H1; in L1H0 `<bos>` has half of it, and so takes the rows without a match."""
SCRATCH_GAIN = 0.01
LETTERS = "abcdefghijklmno"
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@frozen(eq=False)
class Head:
    """One head's matrices, each `[d_head d_model]`: rows of the q, k and v projections, columns of the output projection."""

    q: Array
    k: Array
    v: Array
    o: Array


def frequencies() -> Array:
    """Radians a position, one a pair, [d_head / 2]."""
    return np.asarray(THETA ** (-np.arange(0, D_HEAD, 2) / D_HEAD))


def rms_factor(squared_norm: float) -> float:
    """What RMSNorm multiplies a stream of this squared norm by."""
    return float(1 / np.sqrt(squared_norm / D_MODEL + EPS))


def _blank() -> Array:
    return np.zeros((D_HEAD, D_MODEL))


def _content() -> Array:
    """The 16 head channels of the slow pairs, both halves: one a token."""
    slow = np.arange(POSITION_PAIRS, D_HEAD // 2)
    return np.concatenate([slow, slow + D_HEAD // 2])


def previous_token_head(factor: float) -> Head:
    """q and k are constants, q turned back by one position: `q · k = a² Σ cos(w (distance - 1))`, largest at distance 1."""
    w = frequencies()[:POSITION_PAIRS]
    drop = (1 - np.cos(w)).sum()
    amplitude = np.sqrt(POSITION_GAIN * np.sqrt(D_HEAD) / drop) / factor
    head = Head(_blank(), _blank(), _blank(), _blank())
    fast, token = np.arange(POSITION_PAIRS), np.arange(VOCAB)
    head.q[fast, CONST] = amplitude * np.cos(w)
    head.q[fast + D_HEAD // 2, CONST] = -amplitude * np.sin(w)
    head.k[fast, CONST] = amplitude
    head.v[token, token] = 1 / factor
    head.o[token, token + PREV.start] = 1
    return head


def mean_head(random: np.random.Generator) -> Head:
    """No q and no k: every score is 0. Its values go to SCRATCH."""
    head = Head(_blank(), _blank(), _blank(), _blank())
    head.v[:, TOK] = random.normal(0, 1, (D_HEAD, VOCAB)) / np.sqrt(D_HEAD)
    head.o[:, SCRATCH] = random.normal(0, SCRATCH_GAIN, (D_HEAD, 15))
    return head


def _matching(source: slice, factor: float, sink: bool) -> tuple[Array, Array]:
    """q reads the current token, k reads `source`, a channel each; the channel of `<bos>` serves as the sink."""
    amplitude = np.sqrt(MATCH_GAIN * np.sqrt(D_HEAD)) / factor
    q, k, channel, token = _blank(), _blank(), _content(), np.arange(1, VOCAB)
    q[channel[token], token] = amplitude
    k[channel[token], source.start + token] = amplitude
    if sink:
        q[channel[0], CONST] = amplitude / 2
        k[channel[0], TOK.start] = amplitude
    return q, k


def induction_head(factor: float) -> Head:
    """q reads the current token, k what L0H0 wrote, v the token that stands there; the value of `<bos>` is zero."""
    q, k = _matching(PREV, factor, sink=True)
    head, token = Head(q, k, _blank(), _blank()), np.arange(1, VOCAB)
    head.v[token, token] = 1 / factor
    head.o[token, OUT.start + token] = 1
    return head


def duplicate_token_head(factor: float, random: np.random.Generator) -> Head:
    """q and k read the current token. Its values go to SCRATCH."""
    q, k = _matching(TOK, factor, sink=False)
    other = mean_head(random)
    return Head(q, k, other.v, other.o)


def build() -> tuple[dict[str, Any], dict[str, Array]]:
    """The model as `config.json` and the tensors of a checkpoint, float64, under their transformers names."""
    random = np.random.default_rng(0)
    token = np.arange(VOCAB)
    embed, unembed = np.zeros((VOCAB, D_MODEL)), np.zeros((VOCAB, D_MODEL))
    embed[token, token] = embed[:, CONST] = 1
    # Squared norms of the stream: TOK and CONST are 2; then PREV, then OUT add one each; SCRATCH is negligible.
    first, second, last = rms_factor(2), rms_factor(3), rms_factor(4)
    heads = [
        [previous_token_head(first), mean_head(random)],
        [induction_head(second), duplicate_token_head(second, random)],
    ]
    unembed[token, token + OUT.start] = LOGIT_GAIN / last
    tensors = {"model.embed_tokens.weight": embed, "model.norm.weight": np.ones(D_MODEL), "lm_head.weight": unembed}
    for layer, pair in enumerate(heads):
        at = f"model.layers.{layer}."
        for name in ("q", "k", "v", "o"):
            matrix = np.concatenate([getattr(head, name) for head in pair])
            tensors[f"{at}self_attn.{name}_proj.weight"] = matrix.T if name == "o" else matrix
        tensors |= {f"{at}mlp.{name}_proj.weight": matrix for name, matrix in _mlp(random).items()}
        tensors |= {f"{at}{name}_layernorm.weight": np.ones(D_MODEL) for name in ("input", "post_attention")}
    return _config(), tensors


def _mlp(random: np.random.Generator) -> dict[str, Array]:
    """Random matrices that read TOK, PREV and OUT, and write SCRATCH."""
    read = np.zeros((2, D_MLP, D_MODEL))
    read[..., :CONST] = random.normal(0, 0.1, (2, D_MLP, CONST))
    down = np.zeros((D_MODEL, D_MLP))
    down[SCRATCH] = random.normal(0, SCRATCH_GAIN, (15, D_MLP))
    return {"gate": read[0], "up": read[1], "down": down}


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": D_MODEL,
        "intermediate_size": D_MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "head_dim": D_HEAD, "hidden_act": "silu", "rms_norm_eps": EPS, "rope_theta": THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": THETA}, "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": None,
        "pad_token_id": None,
    }  # fmt: skip


def tokenizer() -> dict[str, Any]:
    """Its `tokenizer.json`: words between blanks, `<bos>` in front."""
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": kind}} for name, kind in (("A", 0), ("B", 1)))
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": 0, "content": "<bos>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        ],
        "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, first], "pair": [bos, first, second],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [0], "tokens": ["<bos>"]}},
        },
        "decoder": None,
        "model": {
            "type": "WordLevel", "vocab": {"<bos>": 0} | {letter: 1 + i for i, letter in enumerate(LETTERS)}, "unk_token": "<bos>"
        },
    }  # fmt: skip


def write(directory: str | Path, dtype: str = "float32") -> Path:
    """Write the model as a checkpoint directory: config, tokenizer and weights in `float32`, `float16` or `bfloat16`.

    Raises `OptionError` for another type. The same call writes the same bytes.
    """
    from safetensors.numpy import save_file

    if dtype not in DTYPES:
        raise OptionError(f"The hand-built model is written as {', '.join(DTYPES)}, not as {dtype!r}.")
    out = Path(directory)
    out.mkdir(parents=True, exist_ok=True)
    config, tensors = build()
    special = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "unk_token": "<bos>",
        "model_max_length": CONTEXT,
    }
    files = {
        "config": config | {"dtype": dtype, "torch_dtype": dtype},
        "tokenizer": tokenizer(),
        "tokenizer_config": special,
    }
    for name, content in files.items():
        (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    stored = {name: np.ascontiguousarray(tensor.astype(DTYPES[dtype])) for name, tensor in tensors.items()}
    save_file(stored, out / "model.safetensors", metadata={"format": "pt"})
    return out


if __name__ == "__main__":
    write(embedded("induction"))
