"""What is advised to see more is what the candidate's own backend takes."""

from __future__ import annotations

import re

import pytest
from attrs import evolve

from llmtrace.cli.advice import advice
from llmtrace.plugins import plugins
from llmtrace.settings import as_text, settings
from llmtrace.trace import ModelInfo

BACKENDS = sorted(name for name, entry in plugins().backends.items() if entry.backend is not None)


def opened(name, preset="shipped", **options):
    backend = plugins().backend(name)
    return ModelInfo("m", name, "", preset=preset, options=as_text(settings(backend, preset, options)))


@pytest.mark.parametrize("name", BACKENDS)
def test_each_option_that_is_named_is_one_that_the_backend_takes_and_the_preset_s_own(name):
    backend = plugins().backend(name)
    named = dict(re.findall(r"([a-z_]+)=([^\s,)]+)", advice(opened(name))))
    assert as_text(settings(backend, "exact", named)) == as_text(settings(backend, "exact", {}))
    assert set(named) <= set(as_text(backend.preset("exact")))


@pytest.mark.parametrize("name", BACKENDS)
def test_where_all_is_exact_already_no_setting_is_advised(name):
    assert advice(opened(name, "exact")) == f"No setting of the backend {name} shows more; a file in a wider type may."


def test_pytorch_is_told_of_its_type_and_what_was_asked_for_besides_is_undone():
    pytest.importorskip("llmtrace_torch")
    assert "--preset exact (dtype=float32, attention=eager)" in advice(opened("torch"))
    assert advice(opened("torch", "exact", dtype="bfloat16")) == "Compare with -o dtype=float32 to see more."
    assert advice(opened("torch"), traced=True).startswith("Record with --preset exact")


def test_of_a_backend_that_is_not_installed_nothing_is_advised():
    assert advice(evolve(opened("reference"), backend="elsewhere")) == ""
