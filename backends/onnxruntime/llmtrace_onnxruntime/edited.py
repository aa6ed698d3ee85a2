"""Graphs whose values can be changed. **Patch**: which elements of a value are replaced, and by what; it goes in as two more inputs. **Alike**:
values that hold the same sites in different layers; a graph can be patched at all of them, so that one session serves all edits of the same
kinds of sites. A value that is not edited gets a patch of nothing, of one element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from attrs import frozen

from llmtrace.dataflow.forms import Form, held_by, shown
from llmtrace.dataflow.graph import Flow
from llmtrace.edits import Change
from llmtrace.errors import ModelOpenError
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step, any_layer
from llmtrace_onnxruntime.running import Runner

WHERE, VALUE, WAS = "/where", "/patch", "/was"
"""What is added to a value's name: for both inputs, and for what it was."""
MOST = 3
"""Edited graphs that are kept: each may have a packed copy of the weights."""
OVERWRITE = ("zero", "replace")
"""What is done to a number whatever it was."""


@frozen(eq=False)
class Patch:
    """`where` and `value` are of the shape of a value."""

    where: Array
    value: Array
    sites: Mapping[str, Array]
    """The signals of all sites that the value holds, each as edits up to it leave it."""


class Editor:
    """Runs a graph with some of its values changed."""

    def __init__(
        self, runner: Runner, flow: Flow, places: Mapping[str, tuple[str, Form]], steps: Mapping[str, Step]
    ) -> None:
        """`runner` runs a graph in which no norm hides a sum that it adds itself: then every reader sees a change."""
        self._runner = runner
        self._flow = flow
        self._places = places
        self._edited: dict[frozenset[str], tuple[Runner, Mapping[str, np.dtype]]] = {}
        """Kinds of sites to the graph that can be patched there, with the types of all patches."""
        self._empty: dict[tuple[str, int], Array] = {}
        """Value and number of tokens to zeros of its shape, which take no memory."""
        self._of: dict[str, list[str]] = {}
        """Value to the sites that it holds, in dataflow order."""
        for site in steps:
            if site in places and len(held_by(places[site])) == 1 and not steps[site].equation.integer:
                self._of.setdefault(places[site][0], []).append(site)

    @property
    def editable(self) -> tuple[str, ...]:
        """The sites that one value holds: what is put together of several cannot be taken apart again."""
        return tuple(site for value, sites in self._of.items() if value in self._flow for site in sites)

    def run(
        self, feeds: Mapping[str, Array], edits: Mapping[str, Sequence[Change]], tokens: int, sites: Sequence[str]
    ) -> dict[str, Array]:
        """The signals of some sites, as the edits leave them. Raises `OptionError` for a change that the type of a value cannot hold."""
        values = sorted({self._places[site][0] for site in edits}, key=self._flow.order)
        asked = [value for value in values if self._asks(value, edits, sites) or (value, tokens) not in self._empty]
        before = self._runner.run(feeds, asked) if asked else {}
        self._empty |= {(value, tokens): _nothing(array) for value, array in before.items()}
        patches: dict[str, Patch] = {}
        for value in values:
            if not self._asks(value, edits, sites):
                found = self._empty[value, tokens]
            elif any(self._flow.follows(value, other) for other in patches):
                found = self._patched(feeds, patches, [value])[value]
            else:
                found = before[value]
            patches[value] = self._patch(found, value, edits, tokens)
        wanted = dict.fromkeys(name for site in sites for name in held_by(self._places[site]))
        made = self._patched(feeds, patches, list(wanted))
        parts = {site: array for patch in patches.values() for site, array in patch.sites.items()}
        return {
            site: parts[site] if site in parts else shown(form, value, made, tokens)
            for site, (value, form) in ((site, self._places[site]) for site in sites)
        }

    def _asks(self, value: str, edits: Mapping[str, Sequence[Change]], sites: Sequence[str]) -> bool:
        """Whether what a value was before its own edits matters: to an edit that builds on it, or to who records a site that it holds."""
        held = self._of[value]
        return any(site in sites for site in held) or any(
            change.op not in OVERWRITE for site in held for change in edits.get(site, ())
        )

    def _patch(self, found: Array, value: str, edits: Mapping[str, Sequence[Change]], tokens: int) -> Patch:
        """The changes of all sites that one value holds: each begins with what the one before it in the dataflow left."""
        array, where, sites = np.array(found, order="C"), np.zeros(found.shape, bool), dict[str, Array]()
        for site in self._of[value]:
            form = self._places[site][1]
            natural = np.array(form.natural(array, tokens))
            if site in edits:
                marked = np.array(form.natural(where, tokens))
                for change in edits[site]:
                    change.apply(natural)
                    marked[change.indices(natural.shape)] = True
                form.put(array, natural)
                form.put(where, marked)
            sites[site] = natural
        return Patch(where, array, sites)

    def _patched(
        self, feeds: Mapping[str, Array], patches: Mapping[str, Patch], outputs: Sequence[str]
    ) -> dict[str, Array]:
        runner, types = self._graph({name: patch.value.dtype for name, patch in patches.items()}, outputs)
        more: dict[str, Array] = {}
        for name, kind in types.items():
            patch = patches.get(name)
            more[name + WHERE] = np.zeros((), bool) if patch is None else patch.where
            more[name + VALUE] = np.zeros((), kind) if patch is None else patch.value
        return runner.run({**feeds, **more}, outputs)

    def _graph(self, types: Mapping[str, np.dtype], outputs: Sequence[str]) -> tuple[Runner, Mapping[str, np.dtype]]:
        """One that can be patched at some values of known types, and at all that are alike."""
        kinds = {self._kind(name): kind for name, kind in types.items()}
        key = frozenset(kinds)
        if key in self._edited and types.items() <= self._edited[key][1].items():
            return self._edited[key]
        for old in (key,) if key in self._edited else tuple(self._edited)[: len(self._edited) - MOST + 1]:
            self._edited.pop(old)[0].close()
        alike = {name: kinds[self._kind(name)] for name in self._of if name in self._flow and self._kind(name) in kinds}
        try:
            made, patched = self._patchable(alike | dict(types), outputs)
        except ModelOpenError:  # its layers compute in different types
            made, patched = self._patchable(types, outputs)
        self._edited[key] = made, patched
        return made, patched

    def _patchable(
        self, types: Mapping[str, np.dtype], outputs: Sequence[str]
    ) -> tuple[Runner, Mapping[str, np.dtype]]:
        made = self._runner.other(patchable(self._runner.proto, types))
        made.open(outputs)
        return made, types

    def _kind(self, value: str) -> str:
        return any_layer(self._of[value][0])

    def close(self) -> None:
        """Let go of all edited graphs."""
        for runner, _ in self._edited.values():
            runner.close()


def _nothing(array: Array) -> Array:
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def patchable(model: onnx.ModelProto, values: Mapping[str, np.dtype]) -> onnx.ModelProto:
    """A copy of a graph in which some values are what two new inputs put in the place of what they were. Their readers read the new ones."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    nodes = list(copied.graph.node)
    del copied.graph.node[:]
    for node in nodes:
        made = [name for name in node.output if name in values]
        for place, name in enumerate(node.output):
            if name in values:
                node.output[place] = name + WAS
        copied.graph.node.append(node)
        for name in made:
            copied.graph.node.append(onnx.helper.make_node("Where", [name + WHERE, name + VALUE, name + WAS], [name]))
            copied.graph.input.append(onnx.helper.make_tensor_value_info(name + WHERE, onnx.TensorProto.BOOL, None))
            kind = onnx.helper.np_dtype_to_tensor_dtype(values[name])
            copied.graph.input.append(onnx.helper.make_tensor_value_info(name + VALUE, kind, None))
    return copied
