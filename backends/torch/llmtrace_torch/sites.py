"""Where sites show in a loaded model. **Tap**: a place where one site may show, to be tried; which ones do, `locate` finds by looking.

Where a weight lives is where a site shows. The family's row says where a schema weight is stored; the module that owns it has, as
its output, the site whose equation reads that weight, and as its input, what that equation reads. So the taps follow from the steps
of a spec and the rows of its family. Where a module's output is not the site itself (a clip, a scale, a norm after it), there is no
tap, and the core derives the site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from attrs import evolve, frozen

from llmtrace.families.native import Family, native_of
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import Attention, Branch, Embedding, Mixer, ModelSpec, Moe, Norm, Positions, Sum, Unembedding
from llmtrace_torch.names import block, common, owner

Port = Literal["in", "out", "query", "key", "value", "pattern"]
"""A module's input or output; or what the attention interface hands to the kernel of an attention module."""
What = Literal["first", "index", "choice"]
"""The first tensor that passes there; the chosen experts; their weights."""
HEADS_FIRST = {"token head d_head": "head token d_head", "token kv_head d_head": "kv_head token d_head"}
KERNEL: dict[str, Port] = {"rot_q": "query", "rot_k": "key", "v": "value"}


@frozen
class Tap:
    """A place where a site may show."""

    module: str
    """Name in the loaded model; empty is the model itself."""
    port: Port
    axes: str
    """As they pass there, without the batch."""
    piece: int = 0
    """Which piece, where several signals pass in one tensor."""
    what: What = "first"


@frozen
class Anatomy:
    """The modules of a loaded model, by name, and which of them are a block or its attention."""

    modules: Mapping[str, object]
    blocks: tuple[str, ...]
    attentions: Mapping[str, int]
    """Attention module to layer."""
    dropouts: Mapping[int, tuple[str, ...]]
    """Layer to the dropout modules of its attention: some receive the pattern."""


def anatomy(spec: ModelSpec, family: Family, modules: Mapping[str, object]) -> Anatomy:
    """Blocks and attentions of a model; a block that cannot be found leaves `blocks` short."""
    blocks = [block(family, layer, modules) for layer in range(len(spec.blocks))]
    attentions: dict[str, int] = {}
    dropouts: dict[int, tuple[str, ...]] = {}
    for layer, record in enumerate(spec.blocks):
        at = f"blocks.{layer}.attn."
        if record.attention and (name := common(family, (at + "W_Q", at + "W_O"), modules)):
            attentions[name] = layer
            inside = [child for child in modules if child.startswith(name + ".")]
            dropouts[layer] = tuple(child for child in inside if type(modules[child]).__name__ == "Dropout")
    return Anatomy(modules, tuple(name for name in blocks if name is not None), attentions, dropouts)


def taps(spec: ModelSpec, family: Family, body: Anatomy) -> dict[str, list[Tap]]:
    """For each site the places where it may show, best first."""
    table = steps(spec)
    found: dict[str, list[Tap]] = {site: [] for site in table}
    for site, step in table.items():
        found[site] += _outputs(site, step, family, body)
    for step in table.values():
        for read, tap in _inputs(table, step, family, body):
            found[read].append(tap)
    if spec.positions is None and body.blocks:
        found["embed"].append(Tap(body.blocks[0], "in", "token d_model"))
    for site, step in table.items():
        if same := alias(step):
            found[site] += found[same]
    for site in table:
        attention = next((module for module, layer in body.attentions.items() if layer == table[site].layer), None)
        if attention and isinstance(table[site].record, Attention):
            found[site] += _kernel(table[site].equation.name, attention, body)
    return {site: list(dict.fromkeys(places)) for site, places in found.items()}


def _outputs(site: str, step: Step, family: Family, body: Anatomy) -> Iterator[Tap]:
    """Where the site's own module hands it out."""
    name, record = step.equation.name, step.record
    layer = step.layer
    if isinstance(record, Unembedding):
        yield Tap("", "out", "token vocab")
    elif isinstance(record, Sum) and layer is not None and layer < len(body.blocks):
        if name == "" and site.endswith("resid_pre"):
            yield Tap(body.blocks[layer], "in", "token d_model")
        elif site.endswith("resid_post"):
            yield Tap(body.blocks[layer], "out", "token d_model")
    elif isinstance(record, Moe):
        yield from _experts(step, family, body)
    elif _shows(step):
        owners = {owner(family, weight.name, body.modules) for weight in step.weights.values()}
        module = owners.pop() if len(owners) == 1 else None
        if module is not None:
            yield from _layouts(Tap(module, "out", *_axes(step, family, "out")))


def _shows(step: Step) -> bool:
    """Whether what the module that owns the step's weights puts out is the site itself."""
    name, record = step.equation.name, step.record
    match record:
        case Attention():
            plain = record.clip is None and (name != "v" or record.v_norm is None)
            return name == "out" or (name in ("q", "k", "v") and plain)
        case Norm():
            return name == "out"
        case Embedding():
            return record.scale == 1.0 and record.norm is None
        case Branch() | Sum() | Mixer() | Unembedding() | Moe():
            return False
        case _:
            return len([weight for weight in step.weights if weight.startswith("W")]) == 1


def _inputs(table: Mapping[str, Step], step: Step, family: Family, body: Anatomy) -> Iterator[tuple[str, Tap]]:
    """What the module that owns the step's matrix, or its norm, reads."""
    record = step.record
    if isinstance(record, Embedding | Positions | Moe) or not step.weights:
        return
    matrices = [weight.name for weight in step.weights.values() if weight.name.rpartition(".")[2][0] in "Ww"]
    if len(matrices) != 1 or (isinstance(record, Attention) and step.equation.name.startswith("rot_")):
        return
    module = owner(family, matrices[0], body.modules)
    reads = step.inputs[0] if len(step.inputs) == 1 else None
    if isinstance(record, Norm):
        reads = table[step.site.removesuffix("out") + "scale"].inputs[0]
    if module is not None and reads is not None:
        axes, piece = _axes(step, family, "in")
        yield from ((reads, tap) for tap in _layouts(Tap(module, "in", axes, piece)))


def _axes(step: Step, family: Family, port: Port) -> tuple[str, int]:
    """How a module's activation is laid out: the stored matrix without the axes of its other side."""
    if isinstance(step.record, Norm | Embedding | Positions):
        stored = native_of(family, next(iter(step.weights.values())).name)[0].axes
        flat = isinstance(step.record, Norm) and stored.startswith("(")
        return ("token " + stored if flat else " ".join(step.axes)), 0
    matrix = next(weight.name for weight in step.weights.values() if weight.name.rpartition(".")[2].startswith("W"))
    row, _ = native_of(family, matrix)
    outward = matrix.rpartition(".")[2] in ("W_O", "W_out")
    if outward == (port == "out"):
        return "token d_model", 0
    kept = [group for group in re.findall(r"\([^)]*\)|\S+", row.axes) if group != "d_model"]
    return " ".join(["token", *kept]), row.piece


def _layouts(tap: Tap) -> Iterator[Tap]:
    """The tap as it is, and with heads before tokens where a module may see them so."""
    yield tap
    if tap.axes in HEADS_FIRST:
        yield evolve(tap, axes=HEADS_FIRST[tap.axes])


def _experts(step: Step, family: Family, body: Anatomy) -> Iterator[Tap]:
    """Router logits, the choice, and the whole: the router's outputs, what the experts are given, what the module returns."""
    name, at = step.equation.name, step.site.rpartition(".")[0]
    router = owner(family, f"{at}.W_router", body.modules)
    shared = f"{at}.shared.W_out"
    inside = (f"{at}.W_router", f"{at}.W_out", *((shared,) if step.record.shared else ()))
    whole = common(family, inside, body.modules)
    experts = common(family, (f"{at}.W_gate", f"{at}.W_in", f"{at}.W_out"), body.modules)
    axes = " ".join(step.axes)
    if name == "router" and router:
        yield Tap(router, "out", axes)
    if name in ("expert_index", "router_weights"):
        what: What = "index" if name == "expert_index" else "choice"
        for module in filter(None, (experts and f"{experts}.experts", experts)):
            if module in body.modules:
                yield Tap(module, "in", axes, what=what)
        if router:
            yield Tap(router, "out", axes, what=what)
    if name == "out" and whole and whole not in body.blocks:
        yield Tap(whole, "out", axes)
    if name == "shared_out" and not step.record.shared.gated and (last := owner(family, shared, body.modules)):
        yield Tap(last, "out", axes)


def alias(step: Step) -> str | None:
    """The site whose tensor this one is too: a contribution without multiplier, and z where nothing stands between it and `W_O`."""
    record = step.record
    if isinstance(record, Branch) and record.multiplier == 1.0:
        return step.inputs[0]
    if isinstance(record, Attention) and step.equation.name == "z" and record.gate is None and record.z_norm is None:
        return step.site + "_post"
    return None


def _kernel(name: str, attention: str, body: Anatomy) -> Iterator[Tap]:
    """What the attention interface hands over, and dropout modules that may receive the pattern."""
    if name in KERNEL:
        head = "head" if name == "rot_q" else "kv_head"
        yield Tap(attention, KERNEL[name], f"{head} token {'d_value' if name == 'v' else 'd_head'}")
    if name == "pattern":
        yield Tap(attention, "pattern", "head query key")
        for dropout in body.dropouts[body.attentions[attention]]:
            yield Tap(dropout, "in", "head query key")
