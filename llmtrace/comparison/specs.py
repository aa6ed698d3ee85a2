"""What two specs say otherwise, field by field; and a spec with one record of it changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

import attrs
from attrs import evolve

from llmtrace.comparison.alike import Alike, rounded_alike, same
from llmtrace.comparison.record import Difference
from llmtrace.spec import Block, Mixer, ModelSpec

T = TypeVar("T")
UNIMPORTANT = ("family", "context", "unembed.tied")
"""Fields that no equation reads."""


def differences(reference: ModelSpec, candidate: ModelSpec, weights: tuple[str, str] = ("", "")) -> list[Difference]:
    """Fields that differ, with the blocks in which they do.

    `weights` are the types in which both sides' files hold numbers: a graph in float16 may hold a number of its config so, too, and then
    says the same as what it rounds to.
    """
    found: dict[tuple[str, str, str], list[int]] = {}
    ends = [(spec, attrs.evolve(spec, blocks=())) for spec in (reference, candidate)]
    alike = rounded_alike(*weights)
    for name, r, c in _unlike("", ends[0][1], ends[1][1], alike):
        if name not in UNIMPORTANT:
            found[name, r, c] = []
    if len(reference.blocks) != len(candidate.blocks):
        found["blocks", str(len(reference.blocks)), str(len(candidate.blocks))] = []
    for layer, (mine, theirs) in enumerate(zip(reference.blocks, candidate.blocks, strict=False)):
        for name, r, c in _in_block(mine, theirs, alike):
            found.setdefault((_short(name), r, c), []).append(layer)
    return [Difference(name, r, c, tuple(layers)) for (name, r, c), layers in found.items()]


def unread(reference: Block, candidate: Block) -> bool:
    """Whether a branch of the candidate's is opaque where the reference's is not: it could not be read."""
    ours, theirs = (sum(isinstance(b.module, Mixer) for b in block.branches) for block in (reference, candidate))
    return theirs > ours


def _in_block(reference: Block, candidate: Block, alike: Alike) -> Iterator[tuple[str, str, str]]:
    """Of one block; where a branch could not be read, of the others alone; where it is not known how heads are made, of the rest."""
    candidate = _as_far_as_known(reference, candidate)
    if not unread(reference, candidate):
        yield from _unlike("blocks.*", reference, candidate, alike)
        return
    ours, theirs = ({b.name: b.module for b in block.branches} for block in (reference, candidate))
    for name in ours:
        if name in theirs and not isinstance(theirs[name], Mixer):
            yield from _unlike(f"blocks.*.{name}", ours[name], theirs[name], alike)


def _as_far_as_known(reference: Block, candidate: Block) -> Block:
    """The candidate's block, with the reference's heads where its own could not be read."""
    a, found = reference.attention, candidate.attention
    if a is None or found is None or found.projected or not a.projected:
        return candidate
    biases = "".join(letter for letter in "QKVO" if letter in (found.biases if letter == "O" else a.biases))
    known = evolve(
        found, rotary=a.rotary, q_norm=a.q_norm, k_norm=a.k_norm, v_norm=a.v_norm, norm_after_rotary=a.norm_after_rotary, clip=a.clip,
        biases=biases, q_latent=a.q_latent, kv_latent=a.kv_latent, shared=a.shared, projected=True,
    )  # fmt: skip
    branches = tuple(evolve(b, module=known) if b.module is found else b for b in candidate.branches)
    return evolve(candidate, branches=branches)


def _short(name: str) -> str:
    """A field's place as sites are called: `blocks.*.attn.rotary.theta`."""
    for part in (".branches.", ".module.", ".norms.", ".norm."):
        name = name.replace(part, ".")
    return name


def leaves(reference: Any, candidate: Any) -> list[tuple[str, str, str]]:
    """What two records say otherwise, field by field: name, the one's value, the other's.

    >>> from llmtrace.spec import Norm
    >>> leaves(Norm(1e-5), Norm(1e-6, centred=True))
    [('eps', '1e-05', '1e-06'), ('centred', 'no', 'yes')]
    """
    return list(_unlike("", reference, candidate, same))


def unlike(reference: Any, candidate: Any) -> list[str]:
    """The fields of one record that differ from another's of its kind."""
    return [
        field.name
        for field in attrs.fields(type(reference))
        if _other(getattr(reference, field.name), getattr(candidate, field.name))
    ]


def swapped(tree: T, old: object, new: object) -> T:
    """A tree of records with every occurrence of one record, and of its equals, replaced.

    Equals, because the steps of a spec are made once for all that are equal to it: their records may be another's.
    """
    return cast("T", _swapped(tree, old, new))


def _swapped(tree: Any, old: object, new: object) -> Any:
    if type(tree) is type(old) and tree == old:
        return new
    if isinstance(tree, tuple):
        each = tuple(_swapped(one, old, new) for one in tree)
        return each if any(a is not b for a, b in zip(each, tree, strict=True)) else tree
    if not attrs.has(type(tree)):
        return tree
    values = {field.name: getattr(tree, field.name) for field in attrs.fields(type(tree))}
    changed = {name: other for name, value in values.items() if (other := _swapped(value, old, new)) is not value}
    return attrs.evolve(tree, **changed) if changed else tree


def _unlike(at: str, reference: Any, candidate: Any, alike: Alike) -> Iterator[tuple[str, str, str]]:
    """Leaves that differ below a place, with what both say."""
    if type(reference) is type(candidate) and attrs.has(type(reference)):
        for field in attrs.fields(type(reference)):
            ours, theirs = getattr(reference, field.name), getattr(candidate, field.name)
            yield from _unlike(f"{at}.{field.name}".lstrip("."), ours, theirs, alike)
    elif isinstance(reference, tuple) and isinstance(candidate, tuple) and len(reference) == len(candidate):
        for place, (ours, theirs) in enumerate(zip(reference, candidate, strict=True)):
            named = getattr(ours, "name", None) or str(place)
            yield from _unlike(f"{at}.{named}", ours, theirs, alike)
    elif isinstance(reference, float) and isinstance(candidate, float):
        if not alike(reference, candidate):
            yield at, said(reference), said(candidate)
    elif _other(reference, candidate):
        yield at, said(reference), said(candidate)


def _other(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return not same(a, b)
    return bool(a != b)


def said(value: Any) -> str:
    """A field's value, in few words.

    >>> said(None), said(500000.0), said(1e-05)
    ('none', '500,000', '1e-05')
    """
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.6g}"
    if attrs.has(type(value)):
        told = ", ".join(f"{field.name} {said(getattr(value, field.name))}" for field in attrs.fields(type(value)))
        return f"{type(value).__name__}({told})" if len(told) <= 80 else type(value).__name__
    return str(value)
