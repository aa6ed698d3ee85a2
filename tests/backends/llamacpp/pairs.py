"""**Pair**: one tiny seeded model twice, as transformers' checkpoint for PyTorch and as a GGUF file of the same weights for llama.cpp.

**Stated**: a bound that docs/llamacpp.md gives in a table; the tests hold what the page says, and say nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

import llmtrace
from llmtrace.families.checkpoint import open_checkpoint
from llmtrace.model import Model
from llmtrace.schema.verify import distance, token_axis
from llmtrace.spec import GatedMlp, Mlp, ModelSpec
from llmtrace.testing.tiny import write_tiny
from llmtrace.trace import Trace
from tests.backends.llamacpp.tiny import MODELS, write_gguf

PAGE = Path(__file__).parents[3] / "docs" / "llamacpp.md"
TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]
UNWINDOWED: dict[str, Any] = {"sliding_window": None}
PERIOD: dict[str, Any] = {"num_hidden_layers": 4, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}
FITTING: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("mistral", "mixtral", "phi3", "longrope", "starcoder2", "dots1"), UNWINDOWED),
    "qwen2": {"use_sliding_window": False},
    "smollm3": {"use_sliding_window": False, "num_hidden_layers": 4, "no_rope_layer_interval": 4},
    "cohere2": PERIOD,
    "exaone4": {"sliding_window": None, "layer_types": ["full_attention"] * 3},
    "olmo3": PERIOD,
    "gemma2": {"query_pre_attn_scalar": 24},
    "gemma3_text": {"query_pre_attn_scalar": 24, "num_hidden_layers": 6, "sliding_window_pattern": 6},
    "qwen3_moe": {"norm_topk_prob": True},
    "gpt_oss": {
        "swiglu_limit": 7.0,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "original_max_position_embeddings": 4096,
            "truncate": True,
        },
    },
}
"""What llama.cpp has in its code and a file cannot say otherwise, as transformers must be told it: no window for the Llamas and their like, nor
for an EXAONE 4 of other than 64 layers; every which layer has none; Gemma's scale is that of its heads; the weights of Qwen3's experts sum to one; where gpt-oss's experts are
clipped, and that the ends of its YaRN ramp are whole numbers (its published config says that they are not: `truncate` is false there)."""


@frozen
class Pair:
    """Where the two are."""

    checkpoint: Path
    gguf: Path

    def torch(self) -> Model:
        """In float32, with the kernel that hands out its pattern."""
        return llmtrace.open(self.checkpoint, backend="torch", preset="exact")

    def llamacpp(self, preset: str = "exact", **options: Any) -> Model:
        """One thread; a file that was just written needs no process of its own."""
        return llmtrace.open(
            self.gguf, backend="llamacpp", preset=preset, options={"guard": False, "threads": 1, **options}
        )


def pair(name: str, directory: Path, **overrides: object) -> Pair:
    """A row of `MODELS`, fitted; `overrides` are keys of the config that come before."""
    row: Any = MODELS[name]
    family, fixed = row
    write_tiny(family, directory, **fixed | FITTING.get(name, {}) | overrides)
    return Pair(directory, write_gguf(open_checkpoint(directory), directory / "tiny.gguf"))


def stated(row: str, column: str) -> float:
    """The number in the table of the page that has such a row and column."""
    for table in re.findall(r"(?:^\|.*\n)+", PAGE.read_text("utf-8"), re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines())
        found = {each[0]: dict(zip(head, each, strict=True)) for each in rows}
        if column in head and row in found:
            return float(found[row][column])
    raise AssertionError(f"{PAGE} states nothing of {row!r} under {column!r}")


def gelu(spec: ModelSpec) -> bool:
    """Whether llama.cpp looks up its activation."""
    module = spec.blocks[0].branches[-1].module
    return isinstance(module, Mlp | GatedMlp) and module.act.startswith("gelu")


def bound(spec: ModelSpec) -> float:
    """What the page states for such a model, three blocks deep; the table's error adds up with every block more."""
    if not gelu(spec):
        return stated("SiLU, ReLU²", "of the worst token, at most")
    return stated("GELU", "of the worst token, at most") * len(spec.blocks) / 3


def off(found: Trace, expected: Trace, site: str) -> tuple[float, float]:
    """How far a signal is from another trace's, whole and worst token; chosen experts are the same or not."""
    step = expected.equations.steps[site]
    ours, theirs = found[site].array, expected[site].array
    if step.equation.integer:
        return (0.0, 0.0) if np.array_equal(ours, theirs) else (np.inf, np.inf)
    return distance(ours, theirs, token_axis(step))
