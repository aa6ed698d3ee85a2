"""What the package brings along is there, and opens."""

from __future__ import annotations

import pytest

import llmtrace
from llmtrace import data
from llmtrace.errors import ModelOpenError


@pytest.mark.parametrize("name", data.EMBEDDED)
def test_every_embedded_model_opens_by_its_name_and_by_its_directory(name):
    by_name, by_path = llmtrace.open(f"builtin:{name}"), llmtrace.open(data.embedded(name), backend="reference")
    assert by_name.info.fingerprint == by_path.info.fingerprint
    assert (by_name.info.backend, by_name.chosen, by_path.chosen) == ("reference", "native", "named")
    assert by_name.tokenizer is not None


@pytest.mark.parametrize("name", data.EMBEDDED)
def test_its_demo_gives_the_answer_that_it_promises_for_the_reason_that_it_gives(name):
    demo = data.EMBEDDED[name].demo
    with llmtrace.open(f"builtin:{name}") as model:
        tokens = model.tokens(demo.prompt)
        assert model.predict(demo.prompt).text == demo.answer == tokens[demo.copied].text
    assert tokens[demo.matched] == tokens[-1]
    assert demo.matched + 1 == demo.copied


def test_a_name_that_is_not_there_gets_near_names():
    for attempt in (lambda: data.embedded("inductoin"), lambda: llmtrace.open("builtin:inductoin")):
        with pytest.raises(ModelOpenError, match=r"'inductoin'; there are induction\. Did you mean induction\?"):
            attempt()
