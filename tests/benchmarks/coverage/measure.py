"""One type, measured: opened by its tape with each kernel, and what it hands out held to what transformers computes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from tempfile import TemporaryDirectory

import numpy as np
import torch
from attrs import evolve
from transformers import PreTrainedModel

from llmtrace.errors import LLMTraceError
from llmtrace.model import Model
from llmtrace.schema.steps import any_layer, steps
from llmtrace.trace import Trace
from llmtrace_torch.open import open_model
from llmtrace_torch.options import TorchOptions
from llmtrace_torch.tape.session import TapedSession
from tests.benchmarks.coverage import held
from tests.benchmarks.coverage.counted import bidirectional, excluded
from tests.benchmarks.coverage.data import UNBUILT
from tests.benchmarks.coverage.outcome import Outcome
from tests.benchmarks.coverage.shrink import small
from tests.benchmarks.coverage.tiny import tiny
from tests.benchmarks.coverage.watched import Computed, run, watched

PROMPT = [int(each) for each in np.random.default_rng(5).integers(2, 100, 19)]
"""Of another length than the prompts of a tape."""


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
    kernels = tuple(dict.fromkeys((own, *_sdpa(kind), "eager")))
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    plain = watched(tiny(kind, "eager"), PROMPT)
    found = Outcome(
        kind, "measured", kernels, _experts(model), layers if isinstance(layers, int) else 0, len(plain.softmaxes),
        structural=True, full=True, aside=True,
    )  # fmt: skip
    with TemporaryDirectory() as path:
        _saved(kind, path)
        for kernel in kernels:
            try:
                found = _opened(found, kernel, plain, path)
            except (LLMTraceError, _NotFoundError) as error:
                why = (_said(error).replace(path, kind),)
                return evolve(found, status="refused", structural=False, full=False, aside=False, why=why)
    return found


def _sdpa(kind: str) -> tuple[str, ...]:
    """The kernel `sdpa`, where transformers has it for the type."""
    try:
        return (str(tiny(kind, "sdpa").config._attn_implementation),)
    except ValueError as error:
        if "scaled_dot_product" not in str(error):
            raise
        return ()


class _NotFoundError(Exception):
    """What reading a model must not raise."""


def _experts(model: PreTrainedModel) -> str:
    """The kernel of the experts; empty where there are none."""
    if not any("expert" in name for name, _ in model.named_parameters()):
        return ""
    return str(model.config.get_text_config()._experts_implementation or "")


def _opened(so_far: Outcome, kernel: str, plain: Computed, path: str) -> Outcome:
    """A type opened with one kernel of attention, added to what is known of it."""
    first = kernel == so_far.kernels[0]
    seen = watched(tiny(so_far.kind, kernel), PROMPT)
    try:
        session = open_model(path, TorchOptions(attention=kernel))
    except LLMTraceError as error:
        raise (error.__cause__ if isinstance(error.__cause__, LLMTraceError) else error) from None
    except Exception as error:
        raise _NotFoundError(_said(error)) from error
    assert isinstance(session, TapedSession)
    assert session.model is not None
    with Model(session) as opened:
        bare = run(session.model, PROMPT)
        trace = opened.trace(PROMPT, max_bytes=None)
        few = opened.trace(PROMPT, capture="logits")
        lacking = [
            *_other_kernel(session, kernel),
            *held.logits(trace, few, [bare, run(session.model, PROMPT)], seen),
            *held.stream(trace, seen, so_far.layers),
            *held.added(trace, seen),
            *held.attention(trace, seen, plain),
        ]
        judged = {each.site: each.status for each in trace.verify()}
        missing = list(_missing(trace, opened))
        captured = len(session.offers)
        table = [site for site in trace if site not in session.offers]
        found = session._found.notes
        unfiled = _unfiled(session) if first else so_far.unfiled
    violated = {
        site: f"`{site}` does not follow from its equation" for site, each in judged.items() if each == "violated"
    }
    lacking += [said for site, said in violated.items() if held.is_structural(site)]
    unheld = list(_unheld(trace, judged))
    notes = [_plain(note) for note in found]
    why = [*notes, *lacking, *violated.values(), *missing, *unheld]
    if not first:
        why = [f"{said} (with {kernel})" for said in why if said not in so_far.why]
    amiss = bool(lacking or violated or missing or unheld)
    return evolve(
        so_far,
        structural=so_far.structural and not lacking,
        full=so_far.full and not (amiss or notes),
        aside=so_far.aside and not (amiss or [each for each in notes if not _of_mixer(each)]),
        captured=captured if first else so_far.captured,
        derived=len(table) if first else so_far.derived,
        unfiled=unfiled,
        why=(*so_far.why, *dict.fromkeys(why)),
    )


def _other_kernel(session: TapedSession, kernel: str) -> Iterator[str]:
    """Whether attention runs with another kernel than was asked for."""
    if (said := session.info.settings["attention"]) != kernel:
        yield f"its attention is {said} where {kernel} was asked for"


def _saved(kind: str, path: str) -> None:
    """The tiny model of a type as a checkpoint, with the config of the type where its model keeps a part of it."""
    tiny(kind).save_pretrained(path)
    small(kind).save_pretrained(path)


def _unheld(trace: Trace, judged: Mapping[str, str]) -> Iterator[str]:
    """What was captured and tells nothing: no equation could be held against it, though the spec has one; or it is zero throughout."""
    for site, step in steps(trace.spec).items():
        signal = trace.signals.get(site)
        if signal is None:
            continue
        if not step.equation.integer and not signal.array.any():
            yield f"`{site}` is zero throughout"
        known = signal.provenance.kind == "derived" or step.equation.opaque
        if not known and judged.get(site, "") not in ("holds", "violated"):
            yield f"`{site}` is held by no equation"


def _unfiled(session: TapedSession) -> tuple[str, ...]:
    """The weights that are not read from the file: they change with the model's memory, which is of no use afterwards."""
    assert session.model is not None
    before = {name: np.array(session.weights[name]) for name in session.weights}
    with torch.no_grad():
        for tensor in session.model.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(2).add_(1)
    moved = (name for name, array in before.items() if not np.array_equal(array, session.weights[name]))
    return tuple(dict.fromkeys(map(any_layer, moved)))


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
