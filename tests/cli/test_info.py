"""`llmtrace info` says what a model is."""

from __future__ import annotations

import pytest
from attrs import evolve

import llmtrace
from llmtrace.schema.steps import steps
from llmtrace.testing import handmade

MODEL = "builtin:induction"


def test_its_document_is_what_the_schema_and_the_model_say(cli, validate):
    document = cli("info", MODEL, "--json", "--tokens-count", "5").document
    validate("info", document)
    with llmtrace.open(MODEL) as model:
        table = steps(model.spec)
        trace = model.trace([0, 1, 2, 3, 4], capture=["**", "blocks.*.attn.result"])
        weights = {name: array.size for name, array in model.weights.items()}
    assert [site["site"] for site in document["sites"]] == list(table)
    for site in document["sites"]:
        signal = trace[site["site"]]
        assert (site["shape"], site["dtype"], site["bytes"]) == (
            list(signal.array.shape),
            str(signal.array.dtype),
            signal.array.nbytes,
        )
        assert site["availability"] == "captured"
    assert document["parameters"] == sum(weights.values()) == 47_424
    assert document["stored"] == {"float32": len(weights)}
    assert document["tokenizer"] is True
    assert document["spec"]["d_model"] == 64
    assert document["bytes"] == sum(site["bytes"] for site in document["sites"] if not site["on_request"])
    assert document["bytes"] < sum(site["bytes"] for site in document["sites"])


def test_its_document_says_of_the_model_what_the_python_side_says(cli, checkpoint):
    (checkpoint / "tokenizer.json").unlink()
    args = ["--backend", "reference", "--preset", "exact", "--dtype", "float32"]
    document = cli("info", checkpoint, *args, "--json").document
    with llmtrace.open(checkpoint, backend="reference", preset="exact", options={"dtype": "float32"}) as model:
        info = model.info
    assert document["model"] == str(checkpoint)
    for name in ("backend", "runtime", "fingerprint", "device", "preset", "weights"):
        assert document[name] == getattr(info, name) != ""
    assert (document["versions"], document["settings"]) == (info.versions, {"dtype": "float32"})
    assert document["notes"] == list(info.notes) == ["There is no tokenizer.json: prompts are token ids."]
    assert (document["chosen"], document["tokenizer"], document["tokens_count"]) == ("named", False, 16)
    assert cli("info", MODEL, "--json").document["chosen"] == "native"


def test_what_can_be_derived_and_what_cannot_be_had_are_told_apart(cli, monkeypatch):
    from llmtrace.protocol import Gap
    from llmtrace.reference import session

    class Partial(session.ReferenceSession):
        def __init__(self, *args):
            super().__init__(*args)
            lost = (
                "blocks.0.attn.pattern",
                "blocks.0.attn.z",
                "blocks.0.resid_mid",
                "blocks.0.attn_out",
                "blocks.0.attn.out",
                "blocks.0.attn.z_post",
            )
            self.offers = {
                site: offer
                for site, offer in self.offers.items()
                if site not in lost and not site.startswith("blocks.0.ln2")
            }
            self.gaps = {"blocks.0.attn.z": Gap("upstream", "the kernel is fused")}
            self.weights = {name: array for name, array in self.weights.items() if name != "blocks.0.attn.W_O"}

    monkeypatch.setattr("llmtrace.reference.open.ReferenceSession", Partial)
    sites = {site["site"]: site for site in cli("info", MODEL, "--json").document["sites"]}
    assert sites["blocks.0.attn.pattern"]["availability"] == "derived"
    assert "blocks.0.attn.scores" in sites["blocks.0.attn.pattern"]["reason"]
    lost = sites["blocks.0.attn.out"]
    assert (lost["availability"], lost["dtype"], lost["bytes"]) == ("unavailable", None, None)
    assert "the weight blocks.0.attn.W_O" in lost["reason"]
    assert sites["blocks.1.attn.out"]["availability"] == "captured"


def test_the_tree_names_every_part_and_draws_like_blocks_together(cli):
    out = cli("info", MODEL).out
    assert "blocks.{0..1}" in out
    assert "Attention(heads 2, kv_heads 2, d_head 32" in out
    assert "Norm(eps 1e-05)" in out
    assert "47,424 parameters: weights float32 (21), computes in float64" in out
    assert "blocks.L.attn.result (on request)" in out


def test_a_model_without_a_tokenizer_says_how_to_prompt_it(cli, checkpoint):
    (checkpoint / "tokenizer.json").unlink()
    run = cli("info", checkpoint, "--backend", "reference")
    assert "--tokens 5,17,3" in run.out
    assert "no tokenizer.json" in run.err


@pytest.mark.parametrize(("option", "computes"), [([], "float64"), (["--dtype", "float32"], "float32")])
def test_whose_type_a_type_is_is_said_wherever_one_is(cli, checkpoint, option, computes):
    handmade.write(checkpoint, "float16")
    run = cli("info", checkpoint, "--backend", "reference", *option)
    assert f", weights float16, computes in {computes}, preset shipped" in run.err
    assert f"parameters: weights float16 (21), computes in {computes}\n" in run.out
    assert "signals' type" in run.out


def test_of_a_backend_that_does_not_say_what_it_computes_in_only_the_weights_types_are_said(cli, monkeypatch):
    from llmtrace.reference import session

    class Silent(session.ReferenceSession):
        def __init__(self, spec, weights, stored, dtype, info, tokenizer):
            super().__init__(spec, weights, stored, dtype, evolve(info, settings={}), tokenizer)

    monkeypatch.setattr("llmtrace.reference.open.ReferenceSession", Silent)
    run = cli("info", MODEL)
    assert "weights float32, preset shipped" in run.err
    assert "weights float32 (21)\n" in run.out
    assert "settings: none\n" in run.out
