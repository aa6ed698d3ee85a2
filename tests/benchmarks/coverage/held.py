"""What a trace hands out, held to what the model computed: each says what is not there, or not equal.

**Equal**: the relative error of each row, that of a token, or of a query of a head. **Passes**: a module reads it, or makes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from llmtrace.schema.sites import Array
from llmtrace.spec import Attention, Sum
from llmtrace.trace import Trace
from tests.benchmarks.coverage.watched import Computed, Passed

EQUAL = 1e-5
"""The largest relative error of a row that is equal."""
DERIVED = 1e-4
"""The same where the equations made it, or another kernel."""
STRUCTURAL = r"embed|pos_embed|ln_final\.out|logits|blocks\.\d+\.(resid_\w+|\w+_out|attn\.(pattern|z|z_post))"
"""Names of structural sites."""


def logits(trace: Trace, few: Trace, bare: Iterable[Computed], seen: Computed) -> Iterator[str]:
    """Bit for bit those of runs that nobody looks at, whether all is captured or they alone; and those of the model that was saved."""
    for each, what in ((trace, "everything is"), (few, "they alone are")):
        if "logits" not in each.signals or not np.isfinite(each.signals["logits"].array).all():
            yield f"the logits are not there, or not finite, when {what} captured"
        elif not all(np.array_equal(each.signals["logits"].array, one.logits) for one in bare):
            yield f"the logits are not the same bit for bit when {what} captured"
    yield from _same(trace, "logits", seen.logits)


def is_structural(site: str) -> bool:
    """Whether it is of the stream or its ends, adds to it, or is a pattern or what it mixes."""
    return re.fullmatch(STRUCTURAL, site) is not None


def stream(trace: Trace, seen: Computed, layers: int) -> Iterator[str]:
    """The stream before each layer, and the final norm, as transformers returns them; every other point of it passes."""
    blocks = len(trace.spec.blocks)
    ran = len(seen.hidden) - 1
    if blocks not in (layers, ran):
        yield f"{blocks} blocks are found where the config says {layers} layers"
        return
    if ran < 1 or blocks % ran:
        yield f"transformers returns {len(seen.hidden)} hidden states for {layers} layers"
        return
    each, after = blocks // ran, _after(seen)
    for place, layer in enumerate(range(0, blocks, each)):
        hidden, reads = seen.hidden[place], trace.spec.blocks[layer].carry_mid.reads
        if after:
            yield from _same(trace, f"blocks.{layer + each - 1}.resid_post", hidden)
        elif not (reads and not [*_same(trace, f"blocks.{layer}.{reads}", hidden)]):
            yield from _same(trace, f"blocks.{layer}.resid_pre", hidden)
            if layer:
                yield from _same(trace, f"blocks.{layer - 1}.resid_post", hidden)
    values = [each.values for each in seen.passed]
    for layer in range(blocks):
        for point in ("resid_pre", "resid_mid", "resid_post"):
            site = f"blocks.{layer}.{point}"
            if point != "resid_mid" or site in trace.equations.steps:
                yield from _among(trace, site, [*values, *seen.hidden], "passes in the model")
    if [*_same(trace, "ln_final.out", seen.hidden[-1])]:
        yield from _same(trace, f"blocks.{blocks - 1}.resid_post", seen.hidden[-1])
        after_layers = [each.values for each in seen.passed[_last(seen.passed) :]]
        yield from _among(trace, "ln_final.out", after_layers, "passes after the last layer")


def added(trace: Trace, seen: Computed) -> Iterator[str]:
    """What enters the stream is made by a module, up to a factor, and what an attention adds by one between it and the next; or it is how far two points
    of the stream lie apart, which `stream` holds.
    """
    first = next((place for place, each in enumerate(seen.passed) if each.layer), 0)
    if _after(seen):  # the first layer may begin with a norm of what enters the model
        first += next((place for place, each in enumerate(seen.passed[first:]) if each.matrix), 0)
    made = [each.values for each in seen.passed[:first] if each.made]
    yield from _among(trace, "embed", made, "is made before the first layer", _by_a_factor)
    place = 0
    for layer, block in enumerate(trace.spec.blocks):
        for branch in block.branches:
            own = isinstance(branch.module, Attention)
            place += own
            made = [each.values for each in seen.passed if each.made and (not own or each.attentions == place)]
            site = f"blocks.{layer}.{branch.name}_out"
            if [*_apart_on_the_stream(trace, site)]:
                yield from _among(trace, site, made, "a module makes", _by_channel if branch.weight else _by_a_factor)


def _apart_on_the_stream(trace: Trace, site: str) -> Iterator[str]:
    """Nothing where the site alone is added to a point of the stream and makes the next."""
    for point in ("resid_mid", "resid_post"):
        at = f"{site.rpartition('.')[0]}.{point}"
        step = trace.equations.steps.get(at)
        if step is not None and len(step.terms) == 2 and step.terms[1] == site and step.record == Sum():
            yield from _same(trace, site, trace[at].array - trace[step.terms[0]].array, DERIVED)
            return
    yield f"`{site}` is not added alone"


def attention(trace: Trace, seen: Computed, plain: Computed) -> Iterator[str]:
    """Patterns and their mixtures as eager attention computes them, and `z_post` as what a matrix reads before the next attention."""
    layers = [layer for layer, block in enumerate(trace.spec.blocks) if block.attention is not None]
    if len(plain.softmaxes) != len(layers):
        yield f"{len(layers)} of {len(plain.softmaxes)} attentions are known"
        return
    if len(seen.softmaxes) + seen.fused != len(layers):
        yield f"{len(seen.softmaxes) + seen.fused} attentions run where eager runs {len(layers)}"
    for place, layer in enumerate(layers):
        at = f"blocks.{layer}.attn"
        yield from _same(trace, f"{at}.pattern", plain.softmaxes[place], DERIVED)
        if len(plain.attentions) == len(layers):
            yield from _same(trace, f"{at}.pattern", plain.attentions[place], DERIVED)
        if place in plain.mixtures:
            yield from _same(trace, f"{at}.z", plain.mixtures[place], DERIVED)
        else:
            yield f"nothing tells what `{at}.z` is"
        read = [each.values for each in seen.passed if each.matrix and not each.made and each.attentions == place + 1]
        yield from _among(trace, f"{at}.z_post", read, "a matrix of the model reads")


def _after(seen: Computed) -> bool:
    """Whether transformers returns what each layer leaves, and not what it reads."""
    first = (each for each in seen.passed if each.layer and np.array_equal(each.values, seen.hidden[0]))
    found = next(first, None)
    return found is not None and found.made


def _last(passed: list[Passed]) -> int:
    """Where the last layer ends."""
    return max((place for place, each in enumerate(passed) if each.layer and each.made), default=0)


def _same(trace: Trace, site: str, expected: Array, near: float = EQUAL) -> Iterator[str]:
    """Nothing where the site is what is expected."""
    if site not in trace:
        yield f"`{site}` is not there"
    elif not (error := apart(trace[site].array, expected)) <= near:
        yield f"`{site}` is not what transformers computes: relative error {error:.0e}"


def _among(
    trace: Trace,
    site: str,
    expected: Iterable[Array],
    what: str,
    fitted: Callable[[Array, Array], Array] = lambda theirs, ours: theirs,
) -> Iterator[str]:
    """Nothing where the site is one of what is expected, `fitted` to it."""
    if site not in trace:
        yield f"`{site}` is not there"
        return
    signal = trace[site]
    found = signal.array.reshape(len(signal.array), -1)
    near = DERIVED if signal.provenance.kind == "derived" else EQUAL
    if not any(each.shape == found.shape and apart(found, fitted(each, found)) <= near for each in expected):
        yield f"`{site}` is nothing that {what}"


def _by_a_factor(theirs: Array, ours: Array) -> Array:
    """Theirs, by the factor that brings it nearest to ours."""
    wide = theirs.astype(np.float64)
    return np.asarray(wide * (float((wide * ours).sum()) / (float((wide * wide).sum()) or 1.0)))


def _by_channel(theirs: Array, ours: Array) -> Array:
    """Theirs, by such a factor a channel."""
    wide = theirs.astype(np.float64)
    return np.asarray(wide * ((wide * ours).sum(0) / np.where(wide.any(0), (wide * wide).sum(0), 1.0)))


def apart(ours: Array, theirs: Array) -> float:
    """The relative error of the worst row; infinite for other shapes, for what is not finite, and where there is nothing but zeros."""
    if ours.shape != theirs.shape or not theirs.any() or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return np.inf
    error = np.linalg.norm(ours.astype(np.float64) - theirs, axis=-1)
    size = np.linalg.norm(theirs.astype(np.float64), axis=-1)
    size[(size == 0) & (error == 0)] = 1.0
    with np.errstate(divide="ignore"):
        return float((error / size).max())
