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
    if not seen.layers:
        yield "its layers are not those that transformers returns hidden states of"
        return
    each, after = blocks // ran, _after(seen)
    for place, layer in enumerate(range(0, blocks, each)):
        hidden, reads = seen.hidden[place], trace.spec.blocks[layer].carry_mid.reads
        if after:
            yield from _same(trace, f"blocks.{layer + each - 1}.resid_post", hidden)
            if layer + each < blocks:
                yield from _same(trace, f"blocks.{layer + each}.resid_pre", hidden)
        elif not (reads and not [*_same(trace, f"blocks.{layer}.{reads}", hidden)]):
            yield from _same(trace, f"blocks.{layer}.resid_pre", hidden)
            if layer:
                yield from _same(trace, f"blocks.{layer - 1}.resid_post", hidden)
    yield from _points(trace, seen, each)
    own = np.array_equal(seen.passed[seen.layers[-1][1]].values, seen.hidden[-1])
    if own and not [*_same(trace, f"blocks.{blocks - 1}.resid_post", seen.hidden[-1])]:
        made = [one.values for one in seen.passed[seen.layers[-1][1] + 1 :] if one.made]
        yield from _among(trace, "ln_final.out", made, "is made after the last layer")
    else:
        yield from _same(trace, "ln_final.out", seen.hidden[-1])


def _points(trace: Trace, seen: Computed, each: int) -> Iterator[str]:
    """Points of the stream pass in their layers, of which one makes `each` blocks, and one after the other."""
    last, at = -1, ""
    for site in trace.equations.steps:
        found = re.fullmatch(r"blocks\.(\d+)\.(resid_\w+)", site)
        if found is None:
            continue
        begin, passed = _within(seen, int(found[1]) // each, before=found[2] == "resid_pre")
        if lacking := [*_among(trace, site, [one.values for one in passed], "passes in its layer")]:
            yield from lacking
            continue
        array = trace[site].array
        place = next(place for place, one in enumerate(passed, begin) if apart(array, one.values) <= DERIVED)
        if place < last or (place == last and found[2] != "resid_pre"):
            yield f"`{site}` passes no later than `{at}`"
        last, at = place, site


def added(trace: Trace, seen: Computed) -> Iterator[str]:
    """What enters the stream is made by a module, up to a factor, and what an attention adds by one between it and the next; or it is how far two points
    of the stream lie apart, which `stream` holds.
    """
    if not seen.layers or len(trace.spec.blocks) % len(seen.layers):
        return  # which `stream` says
    first = seen.layers[0][0]
    if _after(seen):  # the first layer may begin with a norm of what enters the model
        first += next((place for place, one in enumerate(seen.passed[first:]) if one.matrix), 0)
    made = [one.values for one in seen.passed[:first] if one.made]
    yield from _among(trace, "embed", made, "is made before the first layer", _by_a_factor)
    each, place = len(trace.spec.blocks) // len(seen.layers), 0
    for layer, block in enumerate(trace.spec.blocks):
        for branch in block.branches:
            own = isinstance(branch.module, Attention)
            place += own
            _, passed = _within(seen, layer // each)
            made = [one.values for one in passed if one.made and (not own or one.attentions == place)]
            site = f"blocks.{layer}.{branch.name}_out"
            if [*_apart_on_the_stream(trace, site)]:
                channels = branch.weight or block.carry_mid.weight or block.carry_post.weight
                yield from _among(trace, site, made, "a module makes", _by_channel if channels else _by_a_factor)


def _apart_on_the_stream(trace: Trace, site: str) -> Iterator[str]:
    """Nothing where the site alone is added to a point of the stream and makes the next."""
    for point in ("resid_mid", "resid_post"):
        at = f"{site.rpartition('.')[0]}.{point}"
        step = trace.equations.steps.get(at)
        alone = step is not None and len(step.terms) == 2 and step.terms[1] == site and step.record == Sum()
        if step is not None and alone and at in trace and step.terms[0] in trace:
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
    begin, end = seen.layers[0]
    return not np.array_equal(seen.passed[begin].values, seen.hidden[0]) and np.array_equal(
        seen.passed[end].values, seen.hidden[0]
    )


def _within(seen: Computed, layer: int, *, before: bool = False) -> tuple[int, list[Passed]]:
    """What passed while a layer ran, or `before`: from the beginning of the layer before it, or of the run; and where that begins."""
    begin = seen.layers[layer][0] if not before else seen.layers[layer - 1][0] if layer else 0
    return begin, seen.passed[begin : seen.layers[layer][1] + 1]


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
    """Theirs, by a factor and a shift a channel: of as many rows as there are tokens."""
    wide, mean = theirs.astype(np.float64), ours.mean(0, dtype=np.float64)
    off = wide - wide.mean(0)
    return np.asarray(mean + off * ((off * ours).sum(0) / np.where(off.any(0), (off * off).sum(0), 1.0)))


def apart(ours: Array, theirs: Array) -> float:
    """The relative error of the worst row; infinite for other shapes, for what is not finite, and where there is nothing but zeros."""
    if ours.shape != theirs.shape or not theirs.any() or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return np.inf
    error = np.linalg.norm(ours.astype(np.float64) - theirs, axis=-1)
    size = np.linalg.norm(theirs.astype(np.float64), axis=-1)
    size[(size == 0) & (error == 0)] = 1.0
    with np.errstate(divide="ignore"):
        return float((error / size).max())
