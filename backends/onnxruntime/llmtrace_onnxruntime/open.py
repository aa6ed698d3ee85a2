"""From an ONNX file to a session: the graph is looked at, run on a short prompt, read, and held to the equations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime
from attrs import evolve

from llmtrace.dataflow.constants import Constants
from llmtrace.dataflow.forms import shown
from llmtrace.dataflow.locating.locate import locate
from llmtrace.dataflow.pieces import Pieces, constants_of
from llmtrace.dataflow.proof import proven
from llmtrace.dataflow.reading.model import read_model
from llmtrace.dataflow.reading.reader import Reader, probe_prompt
from llmtrace.dataflow.values import beneath, values
from llmtrace.dataflow.weights import stored
from llmtrace.errors import BackendError, ModelOpenError, UnsupportedModelError
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import steps
from llmtrace.spec import ModelSpec
from llmtrace.trace import ModelInfo
from llmtrace_onnxruntime.cut import whole
from llmtrace_onnxruntime.edited import Editor
from llmtrace_onnxruntime.embedded import file_of
from llmtrace_onnxruntime.fusions import inside, unfused
from llmtrace_onnxruntime.inputs import inputs_of
from llmtrace_onnxruntime.integers import OPERANDS
from llmtrace_onnxruntime.offers import notes, offers, precisions
from llmtrace_onnxruntime.optimised import joined, widened
from llmtrace_onnxruntime.optimised import notes as rounding_notes
from llmtrace_onnxruntime.options import OnnxRuntimeOptions
from llmtrace_onnxruntime.proto import load
from llmtrace_onnxruntime.running import Runner
from llmtrace_onnxruntime.saturating import cut_here
from llmtrace_onnxruntime.saturating import notes as saturation_notes
from llmtrace_onnxruntime.session import OnnxRuntimeSession
from llmtrace_onnxruntime.sessions import providers
from llmtrace_onnxruntime.spelling import spelled
from llmtrace_onnxruntime.sums import name_sums, parted
from llmtrace_onnxruntime.tokenizer import open_tokenizer
from llmtrace_onnxruntime.vertices import read_graph

PROBE = 13
"""Tokens of the probe's prompt: as many as no model has heads or channels of."""
MARGIN = 8
"""How much further than on the probe logits may move when signals are asked for, where they do: a fusion is not made then."""
UNSAID = 2048
"""The context of a graph that nothing says one of, as far as reading it goes."""


def open_model(source: str, options: OnnxRuntimeOptions) -> OnnxRuntimeSession:
    """Load a graph. Raises `ModelOpenError` and its kin, with the culprit and the fix."""
    loaded = load(file_of(source) or source, options)
    inputs = inputs_of(loaded)
    proto = (whole(loaded, inputs.logits) if inputs.last_only else None) or loaded.copy()
    name_sums(proto)
    runner = Runner(loaded, options, proto=proto)
    in_parts = unfused(parted(proto))
    spelt = spelled(in_parts, loaded.tensors.shapes)
    graph = read_graph(spelt.model, loaded.tensors.shapes)
    try:
        anatomy = locate(graph, inputs.tokens, inputs.logits, spelt.shapes)
        prompt = probe_prompt(spelt.shapes.get(anatomy.look_up.reads[0], (PROBE,))[0], PROBE)
        parts, hidden = runner.other(spelt.model), inside(spelt.model, proto)
        bare = _bare(runner, inputs.arrays(prompt), inputs.logits)
        wanted = values(anatomy, graph)
        sums = beneath(wanted, hidden, graph)
        wanted = tuple(dict.fromkeys((*wanted, *(term for term, _ in sums.values()))))
        probe = _probe(runner, parts, inputs.arrays(prompt), wanted, hidden)
        moved = _moved(bare, probe[inputs.logits])
        cut = cut_here(proto.graph, loaded.tensors, providers(options)) if options.saturating else ()
        if cut:  # what is read is the file, and not what one processor does to it
            summing = Runner(loaded, evolve(options, saturating=False), proto=proto)
            probe = _probe(summing, parts, inputs.arrays(prompt), wanted, hidden)
            summing.close()
        flow = graph.flow(anatomy.row, anatomy.beside)
        pieces = Pieces(flow, parts, inputs.arrays)
        constants = Constants(graph, loaded.tensors, constants_of(parts))
        context = _context(loaded.config, loaded.genai)
        reader = Reader(flow, pieces, constants, probe, PROBE, context or UNSAID)
        read = read_model(reader, anatomy, _family(loaded.config, loaded.genai), context)
        joins = joined(spelt.model.graph, options)
        rounding = dict.fromkeys(spelt.rounding, OPERANDS) | joins | widened(read, options)
        read = read.without(hidden, sums, constants).rounding(rounding)
        precision = precisions(read, probe, graph)
        signals: dict[str, Array] = {
            site: shown(form, value, probe, PROBE) for site, (value, form) in read.places.items()
        }
        signals |= {"tokens": np.asarray(prompt), "positions": np.arange(PROBE)}
        read = proven(read, signals, precision)
        precision = precisions(read, probe, graph)
        tokenizer, note = open_tokenizer(loaded.path, options.tokenizer)
        types = stored(read.weights, graph, loaded.tensors.stored)
        info = ModelInfo(
            source=source,
            backend="onnxruntime",
            runtime="ONNX Runtime",
            versions={
                "llmtrace-onnxruntime": version("llmtrace-onnxruntime"),
                "onnxruntime": onnxruntime.__version__,
            },
            fingerprint=loaded.fingerprint,
            weights=", ".join(sorted({*types.values()})),
            device="cpu" if options.providers == "CPUExecutionProvider" else options.providers,
            settings=runner.settings,
            capture_tolerance=moved,
            notes=(
                *loaded.notes,
                *notes(read),
                *rounding_notes(read, joins),
                *saturation_notes(cut, _off(bare, probe[inputs.logits])),
                *filter(None, [note, _unseen(read.spec, loaded.config, loaded.genai)]),
            ),
        )
        edited = parts if spelt.model is in_parts else runner.other(in_parts)
        editor = Editor(edited, reader.flow, read.places, steps(read.spec))
        return OnnxRuntimeSession(
            runner,
            editor,
            inputs,
            read,
            info,
            tokenizer,
            types,
            offers(read, precision, probe),
            options.held,
        )
    except BaseException as error:
        runner.close()
        if isinstance(error, UnsupportedModelError) and str(loaded.path) not in str(error):
            raise UnsupportedModelError(
                f"{loaded.path} is not read as a decoder: {error} If it is one, export it by another exporter, or report it."
            ) from error
        raise


def _bare(runner: Runner, feeds: Mapping[str, Array], logits: str) -> Array:
    """The logits of a run of which nothing else is asked. Raises `ModelOpenError` for a graph that ONNX Runtime cannot run as it is."""
    try:
        found = runner.run(feeds, [logits])[logits]
    except BackendError as error:
        raise ModelOpenError(
            f"{runner.loaded.path} does not run on a prompt of {PROBE} tokens, and nothing was asked of it but logits: export it again, by "
            f"another exporter or for another length. {error}"
        ) from error
    if np.isnan(found.astype(np.float32)).any():
        raise ModelOpenError(
            f"{runner.loaded.path} gives logits that are NaN on a short prompt, so nothing of it can be measured: a weight is damaged, or the "
            "export is. Fetch it again, or export it again."
        )
    return found


def _probe(
    runner: Runner, parts: Runner, feeds: Mapping[str, Array], wanted: Sequence[str], hidden: Collection[str]
) -> dict[str, Array]:
    """The wanted values for one prompt, as the graph makes them; those that only its parts have, as they make them."""
    probe = runner.run(feeds, [name for name in wanted if name not in hidden])
    more = [name for name in wanted if name in hidden]
    return probe | (parts.run(feeds, more) if more else {})


def _moved(bare: Array, captured: Array) -> float:
    """How far asking for everything moves the logits, relative, with room for other prompts; 0 where not one bit changes."""
    return MARGIN * _off(captured, bare)


def _off(found: Array, wanted: Array) -> float:
    """The largest difference, relative to the largest number."""
    off = np.abs(wanted.astype(np.float64) - found.astype(np.float64)).max()
    return float(off / np.abs(wanted.astype(np.float64)).max()) if off else 0.0


def _context(config: Mapping[str, Any], genai: Mapping[str, Any]) -> int | None:
    """The longest prompt, where a file beside the graph says one."""
    for found in (
        config.get("max_position_embeddings"),
        genai.get("model", {}).get("context_length"),
        config.get("n_positions"),
    ):
        if isinstance(found, int) and not isinstance(found, bool) and found > 0:
            return found
    return None


def _unseen(spec: ModelSpec, config: Mapping[str, Any], genai: Mapping[str, Any]) -> str:
    """A note where a file beside the graph says a window, and no attention of the graph has one."""
    seen = any(block.attention is not None and block.attention.window for block in spec.blocks)
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    slides = genai.get("model", {}).get("decoder", {}).get("sliding_window")
    said = window or (slides.get("window_size") if isinstance(slides, dict) else None)
    if seen or not isinstance(said, int) or said >= (spec.context or UNSAID):
        return ""
    return f"a file beside the graph says a window of {said} tokens, and the graph has none: what runs sees the whole prompt"


def _family(config: Mapping[str, Any], genai: Mapping[str, Any]) -> str:
    """What a file beside the graph calls the architecture; `onnx` where none does."""
    found = config.get("model_type") or genai.get("model", {}).get("type") or "onnx"
    return found if isinstance(found, str) else "onnx"
