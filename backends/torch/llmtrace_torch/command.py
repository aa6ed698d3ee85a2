"""Where a signal can be edited. A tap **commands** its site if all that reads the site reads what passes there; whether it does, the places
of the modules in the model say.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmtrace.families.native import Family, arrange, stored_shape
from llmtrace.schema.steps import Step
from llmtrace.spec import Moe
from llmtrace_torch.names import owner
from llmtrace_torch.sites import Anatomy, Tap, alias


def commands(site: str, tap: Tap, table: Mapping[str, Step], family: Family, body: Anatomy) -> bool:
    """Whether a change of what passes at a tap is a change of the site, for all that is downstream."""
    step = table[site]
    if tap.what != "first" or step.equation.integer or not _writable(tap, step):
        return False
    if tap.port in ("query", "key", "value"):
        return True  # the kernel is the only reader
    if tap.port == "out":
        return not isinstance(step.record, Moe) or step.equation.name in (
            "out",
            "shared_out",
        )  # a router has chosen by itself
    if tap.port == "in":
        return _only_reader(site, tap.module, table, family, body)
    return False


def _only_reader(site: str, module: str, table: Mapping[str, Step], family: Family, body: Anatomy) -> bool:
    """Whether nothing but this module reads the site: a block reads its input, an attention's dropout the pattern, a matrix its operand."""
    if module in body.blocks:
        return site == "embed" or site.endswith(".resid_pre")
    if any(module in dropouts for dropouts in body.dropouts.values()):
        return True
    readers = [step for step in table.values() if site in step.inputs]
    for reader in readers:
        if alias(reader) == site or alias(table[site]) == reader.site:  # the same tensor under its next name
            if not _only_reader(reader.site, module, table, family, body):
                return False
            continue
        matrices = [weight.name for weight in reader.weights.values() if weight.name.rpartition(".")[2].startswith("W")]
        if not matrices or any(owner(family, name, body.modules) != module for name in matrices):
            return False
    return bool(readers)


def _writable(tap: Tap, step: Step) -> bool:
    """Whether the schema's axes are a view of the tensor's, so that writing there writes into it."""
    sizes = dict(step.sizes) | {"token": 2, "query": 2, "key": 2}
    stored = np.zeros(stored_shape(tap.axes, sizes), np.int8)
    return np.shares_memory(arrange(stored, tap.axes, step.axes, step.sizes, tap.piece), stored)
