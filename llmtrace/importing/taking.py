"""What was placed becomes tokens and signals: arranged, checked against the model's shapes, and kept apart from the dump."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmtrace.comparison.sides import Side
from llmtrace.errors import DumpError, PromptError, shown
from llmtrace.importing.axes import BATCH, MisfitError, arranged, assumed, chosen, with_mask
from llmtrace.importing.dump import Dump
from llmtrace.importing.map import Row
from llmtrace.importing.placing import told
from llmtrace.model import Prompt
from llmtrace.schema.precision import BYTES, Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step
from llmtrace.signals import Provenance, Signal
from llmtrace.tokens import encode_prompt
from llmtrace.trace import Token

NO_TOKENS = "has no token ids: give the prompt (prompt=, --prompt, --tokens), or put them into the dump as `tokens`"


def tokens_of(
    held: Dump, names: list[str], side: Side, prompt: Prompt | None, sequence: int | None
) -> tuple[Token, ...]:
    """The prompt, from whoever said it. Raises `DumpError` where nobody did, `PromptError` where two said it otherwise."""
    said = {name: _ids(held, name, sequence) for name in names}
    if prompt is None:
        if not said:
            raise DumpError(f"{held.name} {NO_TOKENS}.")
        prompt = next(iter(said.values()))
    tokenizer = None if side.model is None else side.model.tokenizer
    tokens = encode_prompt(prompt, tokenizer, side.spec.vocab, side.spec.context)
    for name, ids in said.items():
        if ids != [token.id for token in tokens]:
            raise PromptError(
                f"{shown(name)} in {held.name} holds the tokens {ids!r:.60}, and the prompt is {[token.id for token in tokens]!r:.60}: "
                "they must be the same."
            )
    return tokens


def _ids(held: Dump, name: str, sequence: int | None) -> list[int]:
    array = held.arrays[name]
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        raise DumpError(
            f"{shown(name)} in {held.name} should hold token ids, and is {array.dtype.name} of shape {list(array.shape)}."
        )
    try:
        ids = array if array.ndim == 1 else array[chosen(len(array), sequence)]
    except MisfitError as error:
        raise DumpError(f"{shown(name)} in {held.name} {error}.") from error
    return [int(each) for each in ids]


def signals_of(
    held: Dump, rows: Mapping[str, Row], steps: Mapping[str, Step], tokens: int, sequence: int | None
) -> dict[str, Signal]:
    """Every placed array as a signal, in dataflow order. Raises `DumpError`, which names all that do not fit."""
    found: dict[str, tuple[str, Signal]] = {}
    misfits: list[str] = []
    for name, row in rows.items():
        try:
            signal = _signal(held, name, row, steps[row.site], tokens, sequence)
        except MisfitError as error:
            misfits.append(f"{shown(name)} {error}")
            continue
        first, other = found.setdefault(row.site, (name, signal))
        if first != name and not _same(other.array, signal.array):
            misfits.append(f"{shown(first)} and {shown(name)} are both {row.site}, and differ")
    if misfits:
        raise DumpError(f"{held.name} does not fit a prompt of {tokens} tokens: {told(misfits)}.")
    if not found:
        raise DumpError(f"{held.name} holds nothing of this model: none of its names is a site.")
    return {site: found[site][1] for site in steps if site in found}


def _signal(held: Dump, name: str, row: Row, step: Step, tokens: int, sequence: int | None) -> Signal:
    array = held.arrays[name]
    if array.dtype.name not in BYTES:
        raise MisfitError(f"holds {array.dtype.name}; a signal may hold {', '.join(BYTES)}")
    layout = row.layout or assumed(step, array)
    value = arranged(array, layout, step, tokens, sequence)
    made = [f"{shown(name)} of {held.name}"]
    if str(layout) != " ".join(step.axes):
        of_several = sequence is not None and (BATCH,) in layout.axes
        made.append(f"from [{layout}]" + (f", sequence {sequence}" if of_several else ""))
    masked = with_mask(value, step)  # before a factor makes another number of the least one
    if masked is not value:
        value = masked
        made.append("the type's minimum as -inf")
    if row.factor != 1:
        if value.dtype.kind in "iu":
            raise MisfitError("holds integers, which take no factor")
        value = (value.astype(np.float64) * row.factor).astype(value.dtype)
        made.append(f"times {row.factor:g}")
    own = np.array(value, value.dtype.newbyteorder("="), order="C")  # whoever handed it over may write into theirs
    own.flags.writeable = False
    precision = Precision(own.dtype.name, "float64" if own.dtype.name == "float64" else "float32")
    return Signal(step.site, step.axes, own, Provenance("converted", "; ".join(made)), precision)


def _same(a: Array, b: Array) -> bool:
    """Bit for bit, NaN and all."""
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()
