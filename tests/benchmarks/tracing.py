"""What capturing costs over the bare forward pass of the same model object."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from llmtrace.selection import Capture
from tests.benchmarks.models import open_torch
from tests.benchmarks.paired import Ratio, paired

SELECTIONS: dict[str, Capture] = {
    "trace: logits": "logits",
    "trace: resid_post of every block": "blocks.*.resid_post",
    "trace: every pattern": "blocks.*.attn.pattern",
    "trace: everything": None,
}


class Nobody:
    """Looks at each signal and keeps none."""

    def signal(self, site, array) -> None:
        """Touch the array, as any observer would."""
        array.ravel()[:1]

    def layer_done(self, layer) -> None:
        """Nothing to close."""


def measure(rounds: int, lengths: tuple[int, ...] = (16, 128)) -> list[Ratio]:
    """One group a prompt length."""
    import torch

    found = []
    with tempfile.TemporaryDirectory() as directory:
        label, model = open_torch(Path(directory))
        with model:
            bare = model.session.model
            for length in lengths:
                ids = np.random.default_rng(0).integers(0, model.spec.vocab, length).tolist()
                batch = torch.tensor([ids])

                def forward(batch=batch) -> None:
                    with torch.no_grad():
                        bare(batch, use_cache=False)

                def states(batch=batch) -> None:
                    with torch.no_grad():
                        bare(batch, use_cache=False, output_hidden_states=True)

                variants = {"bare forward": forward, "transformers: hidden states": states}
                for name, capture in SELECTIONS.items():
                    variants[name] = lambda ids=ids, capture=capture: model.trace(ids, capture=capture)
                variants["stream: everything, kept by nobody"] = lambda ids=ids: model.stream(ids, Nobody())
                found += paired(f"{label}, {length} tokens", variants, rounds)
    return found
