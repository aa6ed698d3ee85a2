"""`llmtrace verify` finds a fault where it entered, in a running model and in a saved trace."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
from attrs import evolve

import llmtrace
from llmtrace.cli.verdicts import show
from llmtrace.model import Model
from llmtrace.protocol import Gap
from llmtrace.testing import handmade
from llmtrace.verifying import verify_model
from tests.specs import SPECS, FakeSession, equations

MODEL = "builtin:induction"
PROMPT = "c a f e b o d c a f"


class Drifted(dict):
    """A model's weights as it computes with them: all but one as in the file."""

    def __init__(self, weights, name):
        super().__init__(weights)
        self[name] = np.array(self[name]) + 0.01


@pytest.fixture
def drift(monkeypatch):
    """`drift("blocks.1.attn.W_V")`: the reference backend computes with another weight than the file has."""
    from llmtrace.reference import session

    def start(name):
        class Running(session.ReferenceSession):
            def __init__(self, *args):
                super().__init__(*args)
                self._equations = evolve(self._equations, weights=Drifted(self.weights, name))

        monkeypatch.setattr("llmtrace.reference.open.ReferenceSession", Running)

    return start


def test_a_sound_model_holds(cli, validate):
    run = cli("verify", MODEL, "--json")
    validate("verify", run.document)
    assert (run.code, run.document["verdict"], run.document["first_violated"]) == (0, "holds", None)
    status = {site["site"]: site["status"] for site in run.document["sites"]}
    assert status.pop("blocks.0.attn.result") == status.pop("blocks.1.attn.result") == "unchecked"
    assert set(status.values()) == {"holds"}
    assert run.document["preset"] == "exact"


@pytest.mark.parametrize(
    ("weight", "site"),
    [
        ("embed.W_E", "embed"),
        ("blocks.0.attn.W_Q", "blocks.0.attn.q"),
        ("blocks.1.attn.W_V", "blocks.1.attn.v"),
        ("blocks.1.attn.W_O", "blocks.1.attn.out"),
        ("blocks.0.mlp.W_out", "blocks.0.mlp.out"),
        ("blocks.1.ln2.w", "blocks.1.ln2.out"),
        ("unembed.W_U", "logits"),
    ],
)
def test_a_weight_that_is_not_the_one_in_the_file_is_named_first(cli, validate, drift, weight, site):
    drift(weight)
    args = ["verify", MODEL, "--tokens", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"]
    run = cli(*args, "--json")
    validate("verify", run.document)
    assert (run.code, run.document["verdict"], run.document["first_violated"]) == (1, "violated", site)
    violated = [each for each in run.document["sites"] if each["status"] == "violated"]
    assert [each["site"] for each in violated] == [site]
    assert violated[0]["relative_error"] > violated[0]["tolerance"]
    first = cli(*args).out.splitlines()[0]
    assert first.startswith(f"violated: 1 of 55 judged sites, first {site}: ")
    assert "relative error" in first


def test_the_worst_of_each_kind_or_with_all_every_site_is_listed(cli, drift):
    drift("blocks.1.attn.W_V")
    brief, full = cli("verify", MODEL, PROMPT).out, cli("verify", MODEL, PROMPT, "--all").out
    (row,) = [line for line in brief.splitlines() if line.startswith("blocks.L.attn.v ")]
    assert row.split()[1] == "violated"
    assert row.rstrip().endswith("blocks.1.attn.v")
    assert "unchecked: blocks.L.attn.result (2): recorded on request only" in brief
    assert all(f"\nblocks.{layer}.attn.v " in full for layer in (0, 1))


def test_kinds_of_sites_with_one_gap_stand_in_one_line(capsys):
    built = equations(SPECS["sequential"])
    session = FakeSession(built, [site for site in built.steps if ".attn." not in site])
    session.gaps = {site: Gap("upstream", "attention is fused") for site in built.steps if ".attn." in site}
    show(verify_model(Model(session), [1, 2, 3]), every=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if "attention is fused" in line]
    assert lines[0] == (
        "unavailable: blocks.L.attn.q (2), blocks.L.attn.rot_q (2): it is not available from the backend fake (upstream): "
        "attention is fused. It cannot be derived: missing the weight blocks.L.attn.W_Q and 1 more."
    )


def test_a_model_that_cannot_read_the_built_in_prompt_gets_token_ids(cli):
    document = cli("verify", MODEL, "--json").document
    assert len({token["id"] for token in document["tokens"]}) == 12


def test_the_reference_backend_says_that_it_checks_itself(cli):
    assert any("by the equations themselves" in note for note in cli("verify", MODEL, "--json").document["notes"])


def test_nan_in_the_weights_is_said_and_violates(cli, checkpoint):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.layers.1.self_attn.v_proj.weight"][3, 5] = np.nan
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    run = cli("verify", checkpoint, PROMPT, "--backend", "reference", "--json")
    assert "note: The weights hold NaN or infinity in blocks.1.attn.W_V" in run.err
    assert any("blocks.1.attn.W_V" in note for note in run.document["notes"])
    assert (run.code, run.document["first_violated"]) == (1, "blocks.1.attn.v")
    first = next(site for site in run.document["sites"] if site["status"] == "violated")
    assert (first["relative_error"], first["reason"]) == (None, "holds NaN or infinite values")


@pytest.fixture
def without(monkeypatch):
    """`without("attn.W_")`: the reference backend hands out no weight whose name holds that."""
    from llmtrace.reference import session

    def start(part):
        class Partial(session.ReferenceSession):
            def __init__(self, *args):
                super().__init__(*args)
                self.weights = {name: array for name, array in self.weights.items() if part not in name}

        monkeypatch.setattr("llmtrace.reference.open.ReferenceSession", Partial)

    return start


def test_captured_signals_that_lack_a_weight_are_counted_in_the_first_line(cli, validate, without):
    """No attention weights: q, k, v and out of both blocks cannot be judged, and holding all the rest is not the whole story."""
    without("attn.W_")
    run = cli("verify", MODEL, "--json")
    validate("verify", run.document)
    left = [f"blocks.{layer}.attn.{site}" for layer in (0, 1) for site in ("q", "k", "v", "out")]
    assert (run.code, run.document["verdict"], run.document["left_out"]) == (0, "holds", left)
    assert sum(site["status"] == "holds" for site in run.document["sites"]) == 47
    first, note = cli("verify", MODEL).out.splitlines()[:2]
    assert first.startswith(
        "holds: all 47 judged sites agree with their equations within rounding; 8 captured signals could not be judged"
    )
    assert "from blocks.0.attn.q on" in first
    assert "blocks.0.attn.W_Q" in note
    out = cli("verify", MODEL).out
    assert "\nunchecked: blocks.L.attn.q (2): missing the weight blocks.L.attn.W_Q.\n" in out
    assert "cannot be checked" not in out.split("\n\n")[-1]


def test_a_sound_model_leaves_nothing_out(cli):
    assert cli("verify", MODEL, "--json").document["left_out"] == []
    assert "could not be judged" not in cli("verify", MODEL).out


class TestOfASavedTrace:
    @pytest.fixture
    def saved(self, cli, checkpoint, tmp_path):
        assert cli("trace", checkpoint, PROMPT, "--backend", "reference", "--save", "x.trace", "-q").code == 0
        return tmp_path / "x.trace"

    def test_the_model_that_it_came_from_gives_the_weights(self, cli, validate, saved):
        run = cli("verify", saved, "--json")
        validate("verify", run.document)
        statuses = {site["site"]: site["status"] for site in run.document["sites"]}
        assert (run.code, statuses["blocks.1.attn.v"], statuses["logits"]) == (0, "holds", "holds")
        assert statuses["blocks.0.attn.result"] == "unavailable"

    def test_opening_that_model_is_announced(self, cli, saved, checkpoint):
        assert f"opening {checkpoint} for its weights …" in cli("verify", saved).err
        assert "opening" not in cli("verify", saved, "--quiet").err
        checkpoint.rename(checkpoint.with_name("elsewhere"))
        run = cli("verify", saved)
        assert "opening" not in run.err
        assert "is not on this machine, so nothing that needs weights can be checked" in run.out
        named = checkpoint.with_name("elsewhere")
        assert (
            f"opening {named} for its weights …" in cli("verify", saved, "--model", named, "--backend", "reference").err
        )

    def test_what_is_not_in_it_is_counted_in_one_line_and_listed_in_json(self, cli, checkpoint):
        args = ["--backend", "reference", "--capture", "blocks.*.attn.{scores,pattern}", "--save", "few.trace"]
        cli("trace", checkpoint, PROMPT, *args)
        out = cli("verify", "few.trace").out
        absent = [
            site for site in cli("verify", "few.trace", "--json").document["sites"] if site["status"] == "unavailable"
        ]
        assert len(absent) == 53
        assert "\nnot in this trace: 53 sites\n" in out
        assert "unavailable" not in out
        assert "\nblocks.0.mlp.out " in cli("verify", "few.trace", "--all").out

    def test_kinds_of_sites_with_one_reason_stand_in_one_line(self, cli, checkpoint):
        args = ["--backend", "reference", "--heads", "1", "--save", "one.trace"]
        cli("trace", checkpoint, PROMPT, *args)
        (line,) = [line for line in cli("verify", "one.trace").out.splitlines() if "(heads 1)" in line]
        assert line.startswith("unchecked: blocks.L.attn.q (2), ")
        assert line.endswith(": recorded in part only (heads 1)")

    def test_an_altered_signal_is_named_first(self, cli, saved, tmp_path):
        trace = llmtrace.load(saved)
        site = "blocks.1.attn.z"
        array = trace[site].array.copy()
        array[4, 1, 3] += 0.01
        evolve(trace, signals={**trace.signals, site: evolve(trace[site], array=array)}).save(tmp_path / "y.trace")
        run = cli("verify", tmp_path / "y.trace", "--json")
        assert (run.code, run.document["first_violated"]) == (1, site)

    def test_without_the_model_what_needs_weights_is_unchecked_with_the_reason(self, cli, saved, checkpoint):
        checkpoint.rename(checkpoint.with_name("elsewhere"))
        run = cli("verify", saved, "--json")
        sites = {site["site"]: site for site in run.document["sites"]}
        assert run.code == 0
        assert "not on this machine" in run.document["notes"][-1]
        assert sites["blocks.1.attn.pattern"]["status"] == "holds"
        assert sites["blocks.1.attn.v"]["status"] == "unchecked"
        assert "the weight blocks.1.attn.W_V" in sites["blocks.1.attn.v"]["reason"]
        assert sites["blocks.1.attn.v"]["relative_error"] is None
        named = cli(
            "verify", saved, "--model", checkpoint.with_name("elsewhere"), "--backend", "reference", "--json"
        ).document
        assert {site["site"]: site for site in named["sites"]}["blocks.1.attn.v"]["status"] == "holds"

    def test_a_model_that_has_changed_since_is_not_taken_for_it(self, cli, saved, checkpoint):
        handmade.write(checkpoint, "float16")
        run = cli("verify", saved, "--json")
        assert "has changed since this trace was made" in run.document["notes"][-1]
        named = cli("verify", saved, "--model", checkpoint, "--backend", "reference", "--json")
        assert "is not the file that this trace was made from" in named.err
        assert (named.code, named.document["first_violated"]) == (1, "blocks.0.attn.q")

    def test_another_model_is_refused(self, cli, saved, tmp_path):
        import json

        from safetensors.numpy import load_file, save_file

        other = handmade.write(tmp_path / "other")
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
        tensors = {
            name: array for name, array in load_file(other / "model.safetensors").items() if ".layers.1." not in name
        }
        save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
        assert (
            "is another model than that of the trace"
            in cli("verify", saved, "--model", other, "--backend", "reference").error
        )

    def test_it_takes_no_prompt_and_a_model_takes_no_model(self, cli, saved):
        assert "its own prompt" in cli("verify", saved, PROMPT).error
        assert "--model" in cli("verify", MODEL, "--model", MODEL).error

    def test_a_part_of_a_signal_is_unchecked(self, cli, checkpoint, tmp_path):
        cli(
            "trace",
            checkpoint,
            PROMPT,
            "--backend",
            "reference",
            "--token-index",
            "0,1",
            "--capture",
            "embed",
            "--save",
            "z.trace",
        )
        assert "Nothing could be checked" in cli("verify", "z.trace").error
        assert "recorded in part only" in cli("verify", "z.trace").error
        checkpoint.rename(checkpoint.with_name("elsewhere"))
        assert "is not on this machine" in cli("verify", "z.trace").error

    def test_a_trace_of_a_hub_model_makes_nobody_fetch_it(self, cli, saved, tmp_path, monkeypatch):
        trace = llmtrace.load(saved)
        evolve(trace, model=evolve(trace.model, source="someone/evil", options={"trust_remote_code": "True"})).save(
            tmp_path / "y.trace"
        )
        opened = []
        monkeypatch.setattr("llmtrace.origin._open", lambda *args: opened.append(args))
        assert "not on this machine" in cli("verify", tmp_path / "y.trace", "--json").document["notes"][-1]
        assert opened == []


def _torch() -> bool:
    try:
        return bool(version("llmtrace-torch") and version("torch") and version("transformers"))
    except PackageNotFoundError:
        return False


@pytest.mark.skipif(not _torch(), reason="llmtrace-torch is not installed: pip install ./backends/torch")
def test_a_weight_corrupted_in_the_running_torch_model_is_named_first(cli, checkpoint, monkeypatch):
    import torch

    from llmtrace_torch.plugin import TorchBackend

    load = TorchBackend.open

    def corrupt(source, options):
        session = load(source, options)
        with torch.no_grad():
            session.model.model.layers[1].mlp.gate_proj.weight[5, handmade.CONST] += 1.0
        return session

    args = ["verify", f"torch:{checkpoint}", PROMPT, "--json"]
    assert cli(*args).code == 0
    monkeypatch.setattr(TorchBackend, "open", staticmethod(corrupt))
    run = cli(*args)
    assert (run.code, run.document["first_violated"]) == (1, "blocks.1.mlp.pre")
