"""Models of one block whose vocabulary a test chooses."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

SPECIAL = ["<unk>", "<s>", "</s>"]
"""The first tokens of every vocabulary: unknown, begin, end."""
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
"""How a SentencePiece vocabulary writes single bytes."""


def vocabulary(path: Path, kind: str, tokens: list[str], template: str = "") -> Path:
    """A model of one block with a vocabulary of choice; `none` has no tokens, only their number. `gpt2` is byte-level, of one merge."""
    rng, width, count = np.random.default_rng(1), 32, len(tokens)
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_context_length, 32), (writer.add_embedding_length, width), (writer.add_block_count, 1),
        (writer.add_feed_forward_length, width), (writer.add_head_count, 2), (writer.add_head_count_kv, 2),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_vocab_size, count), (writer.add_tokenizer_model, kind),
    ):  # fmt: skip
        add(value)
    if kind != "none":
        writer.add_token_list(tokens)
        writer.add_token_scores([-float(i) for i in range(count)])
        kinds = [2 if t == "<unk>" else 3 if t in ("<s>", "</s>") else 6 if t.startswith("<0x") else 1 for t in tokens]
        writer.add_token_types(kinds)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    if kind == "gpt2":
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges(["a b"])
    if template:
        writer.add_chat_template(template)
    shapes = {"token_embd": (count, width), "output": (count, width), "output_norm": (width,)}
    shapes |= {f"blk.0.{name}": (width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    shapes |= {f"blk.0.ffn_{name}": (width, width) for name in ("gate", "up", "down")}
    shapes |= {f"blk.0.{name}_norm": (width,) for name in ("attn", "ffn")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
