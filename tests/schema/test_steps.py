"""A spec is walked into sites: which exist, in which order, with which axes, inputs and weights."""

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given

import llmtrace
from llmtrace.schema.names import NAMES, from_transformer_lens
from llmtrace.schema.sites import EQUATIONS, INPUTS, WEIGHTS
from llmtrace.schema.steps import layer_of, steps
from llmtrace.spec import Norm
from tests.specs import CLEAR, SPECS, capture, equations, model, sequential, specs

IDS = (1, 4, 2)


@given(specs())
def test_a_site_comes_after_all_that_it_reads(spec):
    seen = set(INPUTS)
    for site, step in steps(spec).items():
        assert set(step.inputs) <= seen, site
        seen.add(site)


@given(specs())
def test_blocks_come_one_after_the_other(spec):
    layers = [step.layer for step in steps(spec).values()]
    blocks = [layer for layer in layers if layer is not None]
    assert blocks == sorted(blocks)
    assert layers[0] is None
    assert layers[-1] is None
    assert list(steps(spec))[-1] == "logits"


@pytest.mark.parametrize("name", SPECS)
def test_what_is_computed_has_the_shape_that_is_promised(name):
    built = equations(SPECS[name])
    for site, array in capture(built, IDS).items():
        step = built.steps[site]
        assert array.shape == step.shape(len(IDS)), site
        assert len(step.axes) == array.ndim


def test_the_sites_of_a_plain_model_are_those_of_the_design():
    assert [site for site in steps(model(sequential())) if site.startswith("blocks.0.")] == [
        f"blocks.0.{name}"
        for name in (
            "resid_pre", "ln1.scale", "ln1.normalized", "ln1.out", "attn.q", "attn.k", "attn.v", "attn.rot_q", "attn.rot_k", "attn.scores",
            "attn.pattern", "attn.z", "attn.z_post", "attn.result", "attn.out", "attn_out", "resid_mid", "ln2.scale", "ln2.normalized",
            "ln2.out", "mlp.pre", "mlp.pre_linear", "mlp.post", "mlp.out", "mlp_out", "resid_post",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        ("learned positions", {"pos_embed"}, {"blocks.0.mlp.pre_linear"}),
        ("parallel", {"blocks.0.ln1.out"}, {"blocks.0.resid_mid", "blocks.0.ln2.out"}),
        ("sandwich", {"blocks.0.attn_post.scale", "blocks.0.mlp_post.normalized"}, {"pos_embed"}),
        ("post-norms only", {"blocks.0.attn_post.out", "blocks.0.resid_mid"}, {"blocks.0.ln1.out"}),
        ("q and k norms", {"blocks.0.attn.q_norm.out", "blocks.0.attn.k_norm.scale"}, {"blocks.0.attn.sink"}),
        ("norms after rotary", {"blocks.0.attn.rot_q"}, {"blocks.0.attn.q_norm.out"}),
        ("sinks", {"blocks.0.attn.sink"}, {"blocks.0.attn.gate"}),
        ("gate and norm on z", {"blocks.0.attn.gate"}, set()),
        (
            "experts",
            {
                f"blocks.0.mlp.{part}"
                for part in ("router", "router_weights", "expert_index", "shared_out", "pre", "post")
            },
            set(),
        ),
        ("experts chosen first", {"blocks.0.mlp.router"}, {"blocks.0.mlp.shared_out"}),
        ("mixer", {"blocks.0.mixer_out"}, {"blocks.1.mixer_out"}),
    ],
)
def test_a_site_exists_iff_the_record_says_so(name, there, absent):
    sites = set(steps(SPECS[name]))
    assert there <= sites
    assert not absent & sites


@pytest.mark.parametrize(
    ("name", "weight", "shape"),
    [
        ("sequential", "blocks.0.attn.W_Q", (4, 12, 6)),
        ("sequential", "blocks.0.attn.W_K", (2, 12, 6)),
        ("sequential", "blocks.0.attn.W_O", (4, 6, 12)),
        ("sequential", "blocks.0.attn.b_O", (12,)),
        ("sequential", "embed.W_E", (11, 12)),
        ("sequential", "unembed.W_U", (12, 11)),
        ("learned positions", "pos_embed.W_pos", (70, 12)),
        ("learned positions", "unembed.b_U", (11,)),
        ("q and k norms", "blocks.0.attn.q_norm.w", (6,)),
        ("whole-width q and k norms", "blocks.0.attn.k_norm.w", (2, 6)),
        ("norms after rotary", "blocks.0.attn.q_norm.w", (6,)),
        ("sinks", "blocks.0.attn.sinks", (4,)),
        ("experts", "blocks.0.mlp.W_in", (5, 12, 7)),
        ("experts", "blocks.0.mlp.W_router", (12, 5)),
        ("gate a head", "blocks.0.attn.W_gate", (4, 12, 1)),
    ],
)
def test_weights_have_the_names_and_shapes_of_transformerlens(name, weight, shape):
    found = {w.name: w.shape for step in steps(SPECS[name]).values() for w in step.weights.values()}
    assert found[weight] == shape


def test_a_weight_that_the_spec_does_not_have_is_read_by_no_step():
    bare = model(sequential(evolve(SPECS["sequential"].blocks[0].attention, biases="V")))
    names = {w.name for step in steps(bare).values() for w in step.weights.values()}
    assert "blocks.0.attn.b_V" in names
    assert not {f"blocks.0.attn.b_{letter}" for letter in "QKO"} & names


def test_every_equation_is_reached_by_some_model():
    reached = {step.equation.fn for spec in SPECS.values() for step in steps(spec).values()}
    assert reached == {row.fn for rows in EQUATIONS.values() for row in rows.values()}


def test_every_declared_weight_is_read_by_some_model():
    normed = model(sequential(evolve(SPECS["norms after rotary"].blocks[0].attention, q_norm=Norm(1e-6, bias=True, over="d_head"), k_norm=Norm(1e-6, bias=True, over="d_head"), z_norm=Norm(1e-6, bias=True, over="d_value"))))  # fmt: skip
    read = {
        (type(step.record), parameter)
        for spec in (*SPECS.values(), normed)
        for step in steps(spec).values()
        for parameter in step.weights
    }
    assert read == {(record, parameter) for record, rows in WEIGHTS.items() for parameter in rows}


def test_every_equation_says_its_formula():
    for rows in EQUATIONS.values():
        for row in rows.values():
            assert row.formula


@pytest.mark.parametrize(
    ("name", "layer"), [("blocks.12.attn.z", 12), ("logits", None), ("blocks.0.attn.W_Q", 0), ("blocks", None)]
)
def test_a_name_says_its_layer(name, layer):
    assert layer_of(name) == layer


def test_a_later_token_changes_nothing_before_it():
    for spec in CLEAR.values():
        built = equations(spec)
        long, short = capture(built, (1, 4, 2, 9)), capture(built, (1, 4, 2))
        for site, array in short.items():
            axes = built.steps[site].axes
            kept = tuple(slice(0, 3) if axis in ("token", "query", "key") else slice(None) for axis in axes)
            np.testing.assert_allclose(long[site][kept], array, rtol=1e-9, atol=1e-12, err_msg=site)


def known_sites():
    return {site.replace("blocks.0.", "blocks.L.") for spec in SPECS.values() for site in steps(spec)}


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row.site)
def test_every_row_of_the_names_table_is_a_site_of_some_model(row):
    assert row.site in known_sites()


def test_every_site_of_every_model_has_a_row():
    rows = {row.site for row in NAMES}
    missing = {site for site in known_sites() if site.startswith(("blocks.L.", "ln_", "embed", "pos", "logits"))} - rows
    assert missing == set()


def test_no_site_has_two_rows_and_no_name_two_sites():
    assert len({row.site for row in NAMES}) == len(NAMES)
    hooks = [row.transformer_lens.name for row in NAMES if row.transformer_lens]
    assert len(set(hooks)) == len(hooks)


@pytest.mark.parametrize(
    "row",
    [row for row in NAMES if row.transformer_lens and "hook_" in row.transformer_lens.name],
    ids=lambda row: row.site,
)
def test_a_transformerlens_name_leads_to_its_row_or_says_why_not(row):
    hook = row.transformer_lens
    for layer in ("0", "*", "{1..3}"):
        ours = row.site.replace("blocks.L.", f"blocks.{layer}.")
        if hook.same:
            assert from_transformer_lens(hook.name.replace("blocks.L.", f"blocks.{layer}.")) == ours
        else:
            with pytest.raises(llmtrace.LLMTraceError, match="is not the value of our"):
                from_transformer_lens(hook.name)


def test_the_table_for_people_is_the_same_sites():
    spec = SPECS["experts"]
    rows = llmtrace.sites(spec)
    assert [row.name for row in rows] == list(steps(spec))
    (z,) = [row for row in rows if row.name == "blocks.0.attn.z"]
    assert (z.axes, z.inputs, z.equation) == (
        ("token", "head", "d_value"),
        ("blocks.0.attn.pattern", "blocks.0.attn.v"),
        "`pattern @ v`",
    )
