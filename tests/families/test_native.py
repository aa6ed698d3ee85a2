"""The grammar of axes: arranging a stored tensor undoes the way in which it was laid out."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.families import FAMILIES
from llmtrace.families.native import arrange, native_of, stored_shape

NAMES = ("head", "kv_head", "d_head", "d_model", "d_mlp")


@st.composite
def layouts(draw):
    """Axes in a random order, some flattened together; what they hold, and in which order they are wanted."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(1, 4))]
    sizes = {name: draw(st.integers(1, 4)) for name in names}
    cuts = sorted(draw(st.sets(st.integers(1, len(names) - 1)))) if len(names) > 1 else []
    groups = [names[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(names)], strict=True)]
    return groups, sizes, tuple(draw(st.permutations(names)))


@given(layouts())
def test_arrange_inverts_any_layout(layout):
    groups, sizes, wanted = layout
    array = np.arange(prod(sizes.values())).reshape([sizes[name] for name in wanted])
    order = [wanted.index(name) for group in groups for name in group]
    stored = array.transpose(order).reshape([prod(sizes[name] for name in group) for group in groups])
    axes = " ".join(f"({' '.join(group)})" if len(group) > 1 else group[0] for group in groups)
    assert stored_shape(axes, sizes) == stored.shape
    assert np.array_equal(arrange(stored, axes, wanted, sizes), array)
    assert np.array_equal(arrange(stored.reshape(-1), axes, wanted, sizes), array)


SIZES = st.fixed_dictionaries({name: st.integers(1, 4) for name in ("kv_head", "d_head", "d_model", "group")})


def three(sizes):
    """q, k and v that a projection might hold, [head d_head d_model], and the sizes of their axes."""
    heads = sizes["kv_head"] * sizes["group"]
    sizes = {name: size for name, size in sizes.items() if name != "group"} | {
        "head": heads,
        "d_value": sizes["d_head"],
    }
    shapes = [(count, sizes["d_head"], sizes["d_model"]) for count in (heads, sizes["kv_head"], sizes["kv_head"])]
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes], sizes


@given(SIZES)
def test_pieces_one_after_the_other(sizes):
    parts, sizes = three(sizes)
    stored = np.concatenate(parts).reshape(-1, sizes["d_model"])
    for piece, head in enumerate(("head", "kv_head", "kv_head")):
        found = arrange(stored, "(head|kv_head|kv_head d_head) d_model", (head, "d_head", "d_model"), sizes, piece)
        assert np.array_equal(found, parts[piece])


@given(SIZES)
def test_pieces_group_by_group(sizes):
    (q, k, v), sizes = three(sizes)
    by_group = q.reshape(sizes["kv_head"], -1, *q.shape[1:])
    stored = np.concatenate([by_group, k[:, None], v[:, None]], axis=1).reshape(-1, sizes["d_model"])
    queries = "(head:kv_head head:group|1|1 d_head) d_model"
    assert stored_shape(queries, sizes) == stored.shape
    assert np.array_equal(arrange(stored, queries, ("head", "d_head", "d_model"), sizes, 0), q)
    for piece, part in ((1, k), (2, v)):
        assert np.array_equal(
            arrange(stored, "(kv_head group|1|1 d_head) d_model", ("kv_head", "d_head", "d_model"), sizes, piece), part
        )


@given(SIZES)
def test_pieces_head_by_head(sizes):
    parts, sizes = three(sizes | {"group": 1})
    stored = np.stack(parts, axis=1).reshape(-1, sizes["d_model"])
    for piece, part in enumerate(parts):
        assert np.array_equal(
            arrange(stored, "(head 1|1|1 d_head) d_model", ("head", "d_head", "d_model"), sizes, piece), part
        )


def test_activations_are_split_without_knowing_how_many_tokens():
    x = np.arange(7 * 20).reshape(7, 20)
    sizes = {"head": 3, "kv_head": 1, "d_head": 4}
    k = arrange(x, "token (head|kv_head|kv_head d_head)", ("token", "kv_head", "d_head"), sizes, 1)
    assert np.array_equal(k, x[:, 12:16].reshape(7, 1, 4))


def test_axes_of_one_stand_where_they_are_wanted():
    assert arrange(np.ones((1, 5)), "1 d_model", ("d_model", "1"), {"d_model": 5}).shape == (5, 1)


def test_a_plain_arrangement_copies_nothing():
    x = np.ones((6, 4))
    assert np.shares_memory(
        x, arrange(x, "(head d_head) d_model", ("head", "d_model", "d_head"), {"head": 2, "d_head": 3, "d_model": 4})
    )


def test_another_shape_is_an_error_that_shows_both():
    with pytest.raises(ModelOpenError, match=r"shape \[5, 4\] cannot be read as '\(head d_head\) d_model'"):
        arrange(
            np.ones((5, 4)),
            "(head d_head) d_model",
            ("head", "d_head", "d_model"),
            {"head": 2, "d_head": 3, "d_model": 4},
        )


def test_native_of_names_the_tensor_of_a_layer():
    row, names = native_of(FAMILIES["llama"], "blocks.3.attn.W_Q")
    assert (row.axes, names) == ("(head d_head) d_model", ["model.layers.3.self_attn.q_proj.weight"])
    assert native_of(FAMILIES["gemma"], "ln_final.w")[0].plus == 1.0
    assert native_of(FAMILIES["phi3"], "blocks.0.attn.W_V")[0].piece == 2


def test_native_of_names_every_experts_tensor():
    _, names = native_of(FAMILIES["mixtral"], "blocks.1.mlp.W_in", 2)
    assert names == [f"model.layers.1.block_sparse_moe.experts.{expert}.w3.weight" for expert in range(2)]


def test_native_of_refuses_a_weight_without_a_row():
    with pytest.raises(UnsupportedModelError, match=r"no row for blocks\.L\.attn\.sinks"):
        native_of(FAMILIES["llama"], "blocks.0.attn.sinks")
