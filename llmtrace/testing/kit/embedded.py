"""The embedded model, for a backend that brings it in its own format: under the core's name stands the core's model."""

from __future__ import annotations

import pytest

from llmtrace.data import DEMO, DEMO_MODEL
from llmtrace.probing import answer
from llmtrace.reference.plugin import ReferenceBackend
from llmtrace.schema.verify import distance, token_axis
from llmtrace.testing.kit.base import Kit, beyond, open_with
from llmtrace.testing.kit.running import explained, watch


class EmbeddedKit(Kit):
    """An embedded model that the backend knows by its name."""

    def test_the_embedded_model_is_the_cores(self) -> None:
        """Where `probe` says yes to `builtin:induction`, `open` gives that model: the demo's prompt becomes the same ids with the same
        texts, and the signals are the reference's."""
        if answer(self.backend, DEMO_MODEL, None)[0] is None:
            pytest.skip(f"{self.backend.name} does not open {DEMO_MODEL} by its name, so it is given the directory")
        with open_with(self.backend, DEMO_MODEL) as model, open_with(ReferenceBackend, DEMO_MODEL) as other:
            assert model.tokenizer is not None, f"{DEMO_MODEL} has no tokenizer"
            wanted = other.tokens(DEMO.prompt)
            ids = [token.id for token in wanted]
            found = model.tokenizer.encode(DEMO.prompt)
            assert found == ids, f"{DEMO.prompt!r} becomes {found} instead of {ids}"
            for token in wanted:
                text = model.tokenizer.token(token.id).text
                assert text == token.text, f"token {token.id} reads {text!r} instead of {token.text!r}"
            seen, expected = watch(model.session, ids).arrays, watch(other.session, ids).arrays
            axis = {site: token_axis(step) for site, step in other.equations.steps.items() if site in seen}
            assert set(seen) == set(axis), f"{min(set(seen) - set(axis))} is no signal of {DEMO_MODEL}"
            away = {site: distance(seen[site], expected[site], axis[site])[0] for site in axis}
            assert not (others := beyond(away, explained(model.session), axis)), others
