"""A fault of any size is found where it is, or passed over where rounding hides it: no other site is named for it."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch"):
    pytest.importorskip(module)

from tests.comparison.faults.fault import Fault
from tests.comparison.faults.measure import Bench, measure
from tests.comparison.faults.rows.config import TURNED, put, rope
from tests.comparison.faults.rows.tensors import LAYER, change, rounded, times

V = f"{LAYER}.self_attn.v_proj.weight"
DOWN = f"{LAYER}.mlp.down_proj.weight"
SIZES = {
    **{
        f"scale {d}": (("blocks.1.attn.v",), {"tensors": change(V, times(1 + d))}) for d in (1e-4, 3e-3, 0.02, 0.1, 0.3)
    },
    **{f"base {t}": (TURNED, {"config": rope(rope_theta=t)}) for t in (10001.0, 10100.0, 20000.0)},
    **{f"epsilon {e}": (("blocks.0.ln1.out",), {"config": put(rms_norm_eps=e)}) for e in (2e-6, 1e-4, 3e-3)},
    **{f"{bits} bits": (("blocks.1.mlp.out",), {"tensors": change(DOWN, rounded(bits))}) for bits in (8, 6, 4, 2)},
}

QUICK = ("scale 0.003", "scale 0.1", "base 10100.0", "epsilon 0.0001", "6 bits")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("sizes"))
    yield made
    made.close()


@pytest.mark.parametrize(
    "size", [size if size in QUICK else pytest.param(size, marks=pytest.mark.slow) for size in SIZES]
)
def test_on_pytorch(size, bench):
    first, half = _outcomes(size, bench, ("float32", "bfloat16"))
    assert (first.status, first.visible) == ("found", True)
    assert half.status == ("found" if half.visible else "below"), half


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_in_coarse_files(size, bench):
    pytest.importorskip("llmtrace_llamacpp")
    for outcome in _outcomes(size, bench, ("float32", "float16", "GGUF F16", "GGUF Q8_0", "GGUF Q4_0")):
        assert outcome.status == ("found" if outcome.visible else "below"), outcome


def _outcomes(size, bench, columns):
    sites, planted = SIZES[size]
    return list(measure(bench, Fault(size, "llama", sites, (), **planted), columns))
