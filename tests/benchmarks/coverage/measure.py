"""One type, measured: opened by its tape with each kernel, and what it hands out held to what transformers computes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from attrs import evolve
from transformers import PreTrainedModel

from llmtrace.errors import LLMTraceError
from llmtrace.model import Model
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import steps
from llmtrace.trace import ModelInfo, Trace
from llmtrace_torch.tape.found import Found, find
from llmtrace_torch.tape.session import TapedSession
from tests.benchmarks.coverage.counted import bidirectional, excluded
from tests.benchmarks.coverage.data import UNBUILT
from tests.benchmarks.coverage.outcome import Outcome
from tests.benchmarks.coverage.tiny import tiny
from tests.benchmarks.coverage.watched import Computed, run, watched

PROMPT = [int(each) for each in np.random.default_rng(5).integers(2, 100, 19)]
"""Of another length than the prompts of a tape."""
EQUAL = 1e-5
"""The largest relative error of a whole signal that is equal."""
DERIVED = 1e-4
"""The same where the equations made it, or another kernel."""


def measure(kind: str) -> Outcome:
    """All of a type. Raises nothing that a model or llmtrace raises: it becomes a reason."""
    if why := excluded(kind):
        return Outcome(kind, "not counted", why=(why,))
    if why := UNBUILT.get(kind, ""):
        return Outcome(kind, "not built", why=(why,))
    try:
        model = tiny(kind)
        if bidirectional(model, PROMPT):
            return Outcome(kind, "not counted", why=("bidirectional",))
    except Exception as error:
        return Outcome(kind, "not built", why=(_said(error),))
    own = str(model.config._attn_implementation)
    kernels = tuple(dict.fromkeys((own, "eager")))
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    plain = watched(tiny(kind, "eager"), PROMPT)
    found = Outcome(
        kind, "measured", kernels, _experts(model), layers if isinstance(layers, int) else 0, len(plain.softmaxes),
        structural=True, full=True, aside=True,
    )  # fmt: skip
    for kernel in kernels:
        try:
            found = _opened(found, kernel, plain)
        except (LLMTraceError, _NotFoundError) as error:
            return evolve(found, status="refused", structural=False, full=False, aside=False, why=(_said(error),))
    return found


class _NotFoundError(Exception):
    """What reading a model must not raise."""


def _experts(model: PreTrainedModel) -> str:
    """The kernel of the experts; empty where there are none."""
    if not any("expert" in name for name, _ in model.named_parameters()):
        return ""
    return str(model.config.get_text_config()._experts_implementation or "")


def _opened(so_far: Outcome, kernel: str, plain: Computed) -> Outcome:
    """A type opened with one kernel of attention, added to what is known of it."""
    first = kernel == so_far.kernels[0]
    model = tiny(so_far.kind, kernel)
    bare = run(model, PROMPT)
    seen = watched(model, PROMPT)
    try:
        found = find(model, so_far.kind)
    except LLMTraceError:
        raise
    except Exception as error:
        raise _NotFoundError(_said(error)) from error
    info = ModelInfo(
        source=so_far.kind,
        backend="torch",
        runtime="PyTorch",
        versions={},
        fingerprint="0",
        weights="float32",
        device="cpu",
        settings={},
    )
    with Model(TapedSession(model, found, info, None)) as opened:
        trace = opened.trace(PROMPT, max_bytes=None)
        lacking = [*_ends(trace, bare, seen, so_far.layers), *_attention(trace, found, seen, plain)]
        wrong = [each.site for each in trace.verify() if each.status == "violated"]
        missing = list(_missing(trace, opened))
        captured = len(found.offers)
        table = [site for site in trace if site not in found.offers]
    violated = [f"`{site}` does not follow from its equation" for site in wrong]
    lacking += [said for site, said in zip(wrong, violated, strict=True) if _skeleton(site)]
    notes = [_plain(note) for note in found.notes]
    why = [*notes, *lacking, *violated, *missing]
    if not first:
        why = [f"{said} (with {kernel})" for said in why if said not in so_far.why]
    return evolve(
        so_far,
        structural=so_far.structural and not lacking,
        full=so_far.full and not (lacking or violated or missing or notes),
        aside=so_far.aside and not (lacking or violated or missing or [each for each in notes if not _of_mixer(each)]),
        captured=captured if first else so_far.captured,
        derived=len(table) if first else so_far.derived,
        why=(*so_far.why, *dict.fromkeys(why)),
    )


def _skeleton(site: str) -> bool:
    """Whether a site is of the stream or its ends, and not inside a branch."""
    return site.count(".") < 3 and ("resid_" in site or site in ("embed", "pos_embed", "ln_final.out", "logits"))


def _ends(trace: Trace, bare: Computed, seen: Computed, layers: int) -> Iterator[str]:
    """Logits bit for bit; the stream before each layer, and the final norm, as transformers returns them."""
    blocks = len(trace.spec.blocks)
    if "logits" not in trace or not np.array_equal(trace["logits"].array, bare.logits, equal_nan=True):
        yield "the logits are not the same bit for bit when everything is captured"
    for site in ("embed", "ln_final.out"):
        if site not in trace:
            yield f"`{site}` is not there"
    ran = max(1, len(seen.hidden) - 1)
    if blocks not in (layers, ran):
        yield f"{blocks} blocks are found where the config says {layers} layers"
        return
    each, rest = divmod(blocks, ran)
    if rest or not each:
        yield f"transformers returns {len(seen.hidden)} hidden states for {layers} layers"
        return
    for layer, block in enumerate(trace.spec.blocks):
        for branch in block.branches:
            if f"blocks.{layer}.{branch.name}_out" not in trace:
                yield f"`blocks.{layer}.{branch.name}_out` is not there"
    first = "blocks.0.resid_post"
    after = first in trace and _apart(trace[first].array, seen.hidden[0]) <= EQUAL
    for place, layer in enumerate(range(0, blocks, each)):
        hidden, carry = seen.hidden[place], trace.spec.blocks[layer].carry_mid
        normed = f"blocks.{layer}.{carry.reads}"
        if after:
            yield from _same(trace, (f"blocks.{layer}.resid_post",), hidden)
        elif carry.reads and normed in trace and _apart(trace[normed].array, hidden) <= EQUAL:
            continue
        else:
            yield from _same(trace, (f"blocks.{layer}.resid_pre",), hidden)
            if layer:
                yield from _same(trace, (f"blocks.{layer - 1}.resid_post",), hidden)
    yield from _same(trace, ("ln_final.out", f"blocks.{blocks - 1}.resid_post"), seen.hidden[-1])


def _attention(trace: Trace, found: Found, seen: Computed, plain: Computed) -> Iterator[str]:
    """Patterns as eager attention computes them, and `z_post` as what a matrix reads."""
    layers = [layer for layer, block in enumerate(trace.spec.blocks) if block.attention is not None]
    if len(plain.softmaxes) != len(layers):
        yield f"{len(layers)} of {len(plain.softmaxes)} attentions are known"
        return
    told = plain.attentions if len(plain.attentions) == len(layers) else tuple(plain.softmaxes)
    for place, layer in enumerate(layers):
        at = f"blocks.{layer}.attn"
        yield from _same(trace, (f"{at}.pattern",), told[place], DERIVED)
        for site in (f"{at}.z", f"{at}.z_post"):
            if site not in trace:
                yield f"`{site}` is not there"
        if f"{at}.z_post" in trace:
            z = trace[f"{at}.z_post"].array
            z = z.reshape(len(z), -1)
            near = DERIVED if f"{at}.z_post" not in found.offers else EQUAL
            if not any(each.shape == z.shape and _apart(z, each) <= near for each in seen.reads):
                yield f"`{at}.z_post` is nothing that a matrix of the model reads"


def _same(trace: Trace, sites: tuple[str, ...], expected: Array, near: float = EQUAL) -> Iterator[str]:
    """Nothing where one of the sites is what is expected."""
    there = [site for site in sites if site in trace]
    if not there:
        yield f"`{sites[0]}` is not there"
        return
    errors = [_apart(trace[site].array, expected) for site in there]
    if not min(errors) <= near:
        yield f"`{there[0]}` is not what transformers computes: relative error {min(errors):.0e}"


def _apart(ours: Array, theirs: Array) -> float:
    if ours.shape != theirs.shape:
        return np.inf
    scale = float(np.linalg.norm(theirs.astype(np.float64)))
    return float(np.linalg.norm(ours.astype(np.float64) - theirs)) / (scale or 1.0)


def _missing(trace: Trace, opened: Model) -> Iterator[str]:
    """Sites of the spec that a trace of everything lacks."""
    for site, step in steps(trace.spec).items():
        if site not in trace and not step.equation.on_request:
            gap = opened.session.gaps.get(site)
            yield f"`{site}` is not there" + (f": {gap.reason}" if gap else "")


def _plain(note: str) -> str:
    """What of a note is not the same for all."""
    at, _, why = note.partition(" is captured as a whole and no equation is claimed: ")
    return f"`{at}` is opaque: {why}" if why else note


def _of_mixer(note: str) -> bool:
    return re.match(r"`blocks\.\d+\.mixer` is opaque", note) is not None


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, LLMTraceError | _NotFoundError) else f"{type(error).__name__}: {text}"
