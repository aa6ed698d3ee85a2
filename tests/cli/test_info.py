"""`llmtrace info` says what a model is."""

from __future__ import annotations

import llmtrace
from llmtrace.schema.steps import steps

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
    assert "47,424 parameters, stored as float32 (21)" in out
    assert "blocks.L.attn.result (on request)" in out


def test_a_model_without_a_tokenizer_says_how_to_prompt_it(cli, checkpoint):
    (checkpoint / "tokenizer.json").unlink()
    run = cli("info", checkpoint, "--backend", "reference")
    assert "--tokens 5,17,3" in run.out
    assert "no tokenizer.json" in run.err
