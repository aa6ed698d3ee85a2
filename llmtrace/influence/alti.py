"""ALTI: layer-wise contributions of tokens, multiplied from first to last (Ferrando, Gállego, Costa-jussà 2022, arXiv 2203.04212).

**Transformed vector** T_ij: what source j adds to the stream at position i in one block: its paths through all heads, and at j = i what
the stream already held. **Contribution** C_ij: how much nearer T_ij alone comes to their sum, in the L1 norm (Manhattan distance):

    y_i  = Σ_j T_ij + biases               the stream right after attention (`resid_mid`)
    C_ij = max(0, ‖y_i‖₁ - ‖y_i - T_ij‖₁)   then every row is divided by its sum
    ALTI = C_L ⋯ C_1

as in the authors' code (`contributions.py`, and `min_sum` with the resultant's norm in `utils_contributions.py`). For pre-norm decoders T is
taken in the stream, as Ferrando et al. 2023 (arXiv 2305.12535) do; a post-norm is passed with its denominator fixed. MLPs are left out: they
mix no tokens. The law that Σ_j T_ij + biases is the captured y_i is what the completeness gap measures.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from llmtrace.influence.method import Answer, Method, Task
from llmtrace.influence.paths import Paths, path_sites, paths, refuse_mixers, stream_read, weight
from llmtrace.influence.record import Contract
from llmtrace.schema.arithmetic import NUMPY, Arithmetic
from llmtrace.schema.ends import carried
from llmtrace.schema.evaluate import Signals
from llmtrace.schema.sites import Array
from llmtrace.schema.verify import distance
from llmtrace.spec import Attention

LONG = 512
"""From this many tokens on, single precision: half the time, and a gap that stays below 1e-5."""


class AltiFold:
    """Holds the product so far, [query key], and the row of each layer."""

    def __init__(self, task: Task) -> None:
        spec = task.equations.spec
        refuse_mixers(spec, "ALTI")
        self._task = task
        self._dtype: type[np.floating] = np.float64 if len(task.tokens) < LONG else np.float32
        self._ends = [_ends(task, layer) for layer in range(len(spec.blocks))]
        self.sites: Collection[str] = tuple(
            site for layer in range(len(spec.blocks)) for site in (*path_sites(spec, layer), *self._ends[layer])
        )
        self._product = np.eye(len(task.tokens))
        self._layers = np.zeros((len(spec.blocks), len(task.tokens)))
        self._gap = 0.0
        self._undecided = 0

    def layer(self, layer: int, signals: Signals) -> None:
        """Multiply by this block's contributions; a block without attention leaves tokens where they are."""
        equations, position = self._task.equations, self._task.position
        module = equations.spec.blocks[layer].attention
        if module is None:
            self._layers[layer, position] = 1
            return
        base_site, end_site = self._ends[layer]
        base, end = signals[base_site].astype(self._dtype), signals[end_site].astype(self._dtype)
        base = self._carried(layer, base).astype(self._dtype)
        y = end if end_site.endswith(".resid_mid") else base + end
        through = paths(equations, layer, signals, self._dtype)
        mixed, total = contributions(through, base, y, module, equations.arithmetic)
        self._gap = max(self._gap, distance(total + through.constant, y)[1])
        sums = mixed.sum(-1, keepdims=True)
        empty = sums[:, 0] == 0
        self._undecided += int(empty.sum())
        mixed = np.where(empty[:, None], np.eye(len(mixed)), mixed / np.where(sums == 0, 1, sums))
        self._layers[layer] = mixed[position]
        self._product = equations.arithmetic.matmul(mixed, self._product, np.empty_like(mixed))

    def _carried(self, layer: int, base: Array) -> Array:
        """What of the stream goes on beside attention; what is learned of each channel is the token's own."""
        equations, block = self._task.equations, self._task.equations.spec.blocks[layer]
        mid = f"blocks.{layer}.resid_mid"
        point, carry = (
            (mid, block.carry_mid) if mid in equations.steps else (f"blocks.{layer}.resid_post", block.carry_post)
        )
        own = {
            part: weight(equations, f"{point}.{part}") for part, has in (("w", carry.weight), ("b", carry.bias)) if has
        }
        return carried(carry, base, **own)

    def finish(self, ends: Signals) -> None:
        """Nothing at the ends mixes tokens."""

    def answer(self) -> Answer:
        """The product's row at the position, and all of it as `matrix`."""
        warnings: tuple[str, ...] = ()
        if self._undecided:
            warnings = (
                f"In {self._undecided} rows of single layers no token comes nearer to the output: they were left with themselves.",
            )
        return Answer(
            scores=self._product[self._task.position],
            completeness_gap=self._gap,
            matrix=self._product,
            layers=self._layers,
            warnings=warnings,
            notes=(("computed in", np.dtype(self._dtype).name),),
        )


def _ends(task: Task, layer: int) -> tuple[str, ...]:
    """The stream that attention reads, and either the stream right after it or what it adds; none without attention."""
    block, at = task.equations.spec.blocks[layer], f"blocks.{layer}."
    branch = block.branch("attn")
    if branch is None:
        return ()
    mid = task.equations.steps.get(at + "resid_mid")
    carry = block.carry_post if mid is None else block.carry_mid
    base, added = at + (carry.reads or stream_read(block, branch)), f"{at}{branch.name}_out"
    return (base, mid.site if mid is not None and mid.terms == (base, added) else added)


def contributions(
    through: Paths, base: Array, y: Array, attention: Attention, arithmetic: Arithmetic = NUMPY
) -> tuple[Array, Array]:
    """C before its rows are normalised, [query key] in float64, and Σ_j T_ij, [query d_model].

    T is made in chunks of queries × keys, so the memory beyond C is bounded.
    """
    tokens, d_model = y.shape
    c = np.zeros((tokens, tokens))
    total = np.zeros_like(y)
    norms = np.abs(y).sum(-1)
    side = max(1, math.isqrt(arithmetic.block // d_model))
    work, summed = np.empty(side * side * d_model, y.dtype), np.empty((1, 1, side * d_model), y.dtype)
    for first in range(0, tokens, side):
        keys = slice(first, min(first + side, tokens))
        results = None if through.gates is not None else _results(through, keys, arithmetic)
        last = tokens if attention.window is None else min(tokens, keys.stop + attention.window - 1)
        for start in range(first, last, side):
            queries = slice(start, min(start + side, last))
            vectors = _transformed(through, results, queries, keys, work, arithmetic)  # [key query d_model]
            if start == first:
                own = np.arange(keys.stop - first)
                vectors[own, own] += base[keys]
            flat = vectors.reshape(1, len(vectors), -1)
            sums = arithmetic.matmul(np.ones((1, 1, len(vectors)), y.dtype), flat, summed[..., : flat.shape[-1]])
            total[queries] += sums.reshape(-1, d_model)
            c[queries, keys] = np.maximum(0, norms[queries, None] - arithmetic.distances(vectors, y[queries]).T)
    silent = (through.mass == 0).all(0)
    np.fill_diagonal(silent, False)
    c[silent] = 0  # exactly, where rounding of two like sums might differ
    return c, total


def _results(through: Paths, keys: slice, arithmetic: Arithmetic) -> Array:
    """What each head would add if it looked at one key only, [key head d_model]."""
    values, W_O = through.values[keys].transpose(1, 0, 2), through.W_O
    return arithmetic.matmul(values, W_O, np.empty((*values.shape[:2], W_O.shape[-1]), W_O.dtype)).transpose(1, 0, 2)


def _transformed(
    through: Paths, results: Array | None, queries: slice, keys: slice, work: Array, arithmetic: Arithmetic
) -> Array:
    """Paths summed over heads, [key query d_model], where the next chunk's will be too."""
    mass = np.ascontiguousarray(through.mass[:, queries, keys].transpose(2, 1, 0))  # [key query head]
    if results is not None:
        shape = (*mass.shape[:2], results.shape[-1])
        return arithmetic.matmul(mass, results, work[: math.prod(shape)].reshape(shape))
    values, flat = through.values[keys], through.W_O.reshape(-1, through.W_O.shape[-1])
    out = np.empty((*mass.shape[:2], flat.shape[-1]), flat.dtype)
    gates = through.gates
    for place, query in enumerate(range(queries.start, queries.stop)):
        mixed = mass[:, place, :, None] * values * (1 if gates is None else gates[query])
        out[:, place] = mixed.reshape(len(mixed), -1) @ flat
    return out


ALTI = Method(
    name="alti",
    title="ALTI",
    needs="T W",
    cost="T² d H L",
    completeness="Σ_j T_ij + biases = the stream right after attention; the gap is that of the worst token of any layer",
    source="Ferrando, Gállego, Costa-jussà 2022 (arXiv 2203.04212), section 3; authors' code mt-upc/transformer-contributions",
    contract=Contract(
        output="the residual stream at the position after the last block (no target enters)",
        features="the residual stream at each source position before the first block",
        process="L1 contributions of each layer's attention and residual, rows normalised, multiplied from first to last layer",
        fixed="attention patterns, gates and norm denominators; MLPs are left out",
        unit="share (a row sums to 1)",
    ),
    fold=AltiFold,
    aims=False,
)
