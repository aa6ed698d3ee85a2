"""Numbers of a model by name: of its parameters as its file has them, so that what was changed on the way into memory shows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from llmtrace.dataflow.graph import Graph
from llmtrace.schema.sites import Array
from llmtrace_torch.arrays import as_numpy, kind_of


class Arrays(Mapping[str, Array]):
    """Tensors as arrays, when they are asked for."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Array:
        return as_numpy(self._tensors[name])

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class Filed(Mapping[str, Array]):
    """Parameters and constants of a tape, each from the file where it is one tensor of it, and from memory elsewhere.

    What was rounded to another type on loading is read as it works, until this is `settled`: then as the file has it.
    """

    def __init__(
        self, leaves: Mapping[str, torch.Tensor], tensors: Mapping[str, Array], names: Mapping[str, str]
    ) -> None:
        """`names` are those of the file's tensors, by parameter."""
        self.names = names
        self.settled = False
        self.working: frozenset[str] = frozenset()
        """Those that are read as they work now, whatever the file has, and whatever they held before."""
        self.kept: dict[str, torch.Tensor] = {}
        """What those hold that were replaced: it is read in place of what replaces them."""
        self.standing: Mapping[str, Array] = {}
        """Arrays that are read in the place of some, to see what becomes of them."""
        self.asked: set[str] = set()
        """Those that were read."""
        self._leaves = leaves
        self._tensors = tensors

    @property
    def kinds(self) -> dict[str, str]:
        """The type of each in memory."""
        return {name: kind_of(leaf) for name, leaf in self._leaves.items()}

    def beneath(self, graph: Graph, wanted: Sequence[str]) -> dict[str, Array]:
        """Those from the file, and what is read in place of others, that some constants are computed from."""
        found: dict[str, Array] = {}
        seen, waiting = set[str](), list(wanted)
        while waiting:
            name = waiting.pop()
            if name in self._leaves:
                self.asked.add(name)
            if (name in self.standing or name in self.kept or self._is_filed(name)) and name not in found:
                found[name] = self[name]
            vertex = graph.maker.get(name)
            if vertex is not None and name not in seen:
                waiting += filter(None, vertex.reads)
            seen.add(name)
        return found

    def __getitem__(self, name: str) -> Array:
        self.asked.add(name)
        if name in self.standing:
            return self.standing[name]
        if self._is_filed(name):
            return self._tensors[self.names[name]]
        kept = {} if name in self.working else self.kept
        return as_numpy(kept.get(name, self._leaves[name]))

    def _is_filed(self, name: str) -> bool:
        """Whether the file is asked."""
        if name not in self.names or name in self.working:
            return False
        return self.settled or self._tensors[self.names[name]].dtype.name == kind_of(self._leaves[name])

    def __contains__(self, name: object) -> bool:
        return name in self._leaves

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)


def filed_under(leaves: Mapping[str, torch.Tensor], tensors: Mapping[str, Array], model: PreTrainedModel) -> Filed:
    """Leaves of a tape with the tensors of the file that they are, of the same shape and under the name that transformers loads them by."""
    names = {
        name: own
        for own, name in loaded_as(tensors, model).items()
        if name in leaves and tensors[own].shape == leaves[name].shape
    }
    return Filed(leaves, tensors, names)


def loaded_as(tensors: Collection[str], model: PreTrainedModel) -> dict[str, str]:
    """Tensors of a file to the parameters that they become as they are; none of those of which transformers puts together new ones."""
    changes = get_model_conversion_mapping(model)
    renamings = [each for each in changes if isinstance(each, WeightRenaming)]
    converters = [each for each in changes if isinstance(each, WeightConverter)]
    known = model.state_dict()
    found: dict[str, str] = {}
    for own in tensors:
        name, converted = rename_source_key(own, renamings, converters, model.base_model_prefix, known)
        if name not in known:
            name, converted = rename_source_key(own, [], [], model.base_model_prefix, known)
        if converted is None:
            found[own] = name
    return found
