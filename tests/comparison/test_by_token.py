"""Errors token by token: against the two models' own signals, by the definition written out."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
from attrs import evolve
from safetensors.numpy import load_file, save_file

import llmtrace
from llmtrace.comparison.by_token import WORST, WorstToken, worst_of_all, worst_tokens
from llmtrace.comparison.comparing import compare
from llmtrace.data import embedded

SAME = "reference:builtin:induction"
PROMPTS = [[0, 1, 6, 5, 2, 1, 6], [0, 4, 4, 2]]


def relative(found, expected):
    """Of every token [token channel]; none of nothing."""
    pairs = zip(found.tolist(), expected.tolist(), strict=True)
    return [math.dist(f, e) / math.hypot(*e) if any(e) else 0.0 for f, e in pairs]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The built-in model, and the same with one value matrix off by a tenth, unevenly."""
    directory = tmp_path_factory.mktemp("pair") / "other"
    shutil.copytree(embedded("induction"), directory)
    tensors = load_file(directory / "model.safetensors")
    name = next(name for name in tensors if "layers.0" in name and "v_proj" in name)
    noise = np.random.default_rng(5).normal(1, 0.1, tensors[name].shape)
    tensors[name] = (tensors[name] * noise).astype(tensors[name].dtype)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return SAME, f"reference:{directory}"


@pytest.fixture(scope="module")
def found(pair):
    return compare(*pair, prompts=PROMPTS)


@pytest.fixture(scope="module")
def signals(pair):
    """Both sides' signals, prompt by prompt, without `compare`."""
    both = []
    for name in pair:
        with llmtrace.open(name) as model:
            both.append([model.trace(ids) for ids in PROMPTS])
    return both


def test_what_a_token_inherits_is_how_far_its_signal_is_from_the_reference_s(found, signals):
    ours, theirs = signals
    strips = found.candidates[0].by_token
    assert {each.site for each in strips} == {"embed", "blocks.0.resid_post", "blocks.1.resid_post", "logits"}
    assert len(strips) == 4 * len(PROMPTS)
    for strip in strips:
        expected = relative(theirs[strip.prompt][strip.site].array, ours[strip.prompt][strip.site].array)
        assert strip.inherited_errors == pytest.approx(expected, rel=1e-5, abs=1e-12), strip.site
        assert strip.local_errors == pytest.approx([0.0] * len(expected), abs=1e-6), strip.site


def test_norms_are_those_of_the_reference_s_stream(found, signals):
    assert [(each.site, each.prompt) for each in found.norms] == [
        (site, prompt) for site in ("embed", "blocks.0.resid_post", "blocks.1.resid_post") for prompt in (0, 1)
    ]
    for each in found.norms:
        rows = signals[0][each.prompt][each.site].array.tolist()
        assert each.norms == pytest.approx([math.hypot(*row) for row in rows], rel=1e-6)


def test_the_worst_tokens_of_a_site_are_those_of_all_prompts(pair, found, signals):
    (site,) = [each for each in found.candidates[0].sites if each.site == "blocks.0.attn.v"]
    ours, theirs = signals
    local, far = {}, {}
    with llmtrace.open(pair[0]) as model:
        w = model.equations.weights["blocks.0.attn.W_V"]
    for prompt, trace in enumerate(theirs):
        x = trace["blocks.0.ln1.out"].array
        mine = trace["blocks.0.attn.v"].array.reshape(len(x), -1)
        for into, expected in (
            (local, np.einsum("td,hdk->thk", x, w).reshape(len(x), -1)),
            (far, ours[prompt]["blocks.0.attn.v"].array.reshape(len(x), -1)),
        ):
            into.update({(prompt, token): error for token, error in enumerate(relative(mine, expected))})
    told = [each.local_error for each in site.worst_tokens]
    assert told == pytest.approx(sorted(local.values(), reverse=True)[:WORST], rel=1e-4)
    assert {each.prompt for each in site.worst_tokens} == {0, 1}
    for each in site.worst_tokens:
        at = (each.prompt, each.token)
        assert (each.local_error, each.inherited_error) == pytest.approx((local[at], far[at]), rel=1e-4)


def test_where_nothing_is_off_locally_those_that_inherit_most_are_worst():
    found = worst_tokens(3, np.zeros(3), np.array([0.1, 0.3, 0.2]))
    assert [(each.prompt, each.token, each.inherited_error) for each in found] == [
        (3, 1, 0.3),
        (3, 2, 0.2),
        (3, 0, 0.1),
    ]
    assert worst_tokens(0, np.zeros(3), None) == worst_tokens(0, None, np.ones(3)) == ()


def test_of_several_prompts_the_worst_are_kept_and_the_first_of_equals():
    many = [WorstToken(p, t, float(t % 4), None) for p in (1, 0) for t in range(6)]
    assert [(each.prompt, each.token) for each in worst_of_all(many)] == [(0, 3), (1, 3), (0, 2), (1, 2), (0, 1)]


def test_json_has_four_digits_of_each_token_and_null_for_what_is_infinite(found):
    strips = found.candidates[0].by_token
    spoilt = evolve(strips[-1], local_errors=(math.inf, 1 / 3, 2e-9 / 3), inherited_errors=())
    document = evolve(found, candidates=(evolve(found.candidates[0], by_token=(spoilt,)),)).to_json()
    assert document["candidates"][0]["by_token"] == [
        {"site": "logits", "prompt": 1, "local_errors": [None, 0.3333, 6.667e-10], "inherited_errors": []}
    ]
    assert document["norms"][0]["norms"] == [float(f"{each:.3e}") for each in found.norms[0].norms]
