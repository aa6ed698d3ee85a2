"""Where weights lie in parameters: told by what reading makes of the numbers of the places, and only where nothing is computed."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from llmtrace.dataflow.constants import Source
from llmtrace.errors import OptionError
from llmtrace_torch.tape.filed import Filed
from llmtrace_torch.tape.places import Places
from llmtrace_torch.tape.replaced import Replacing

LEAVES = {"a": torch.arange(24.0).reshape(4, 6) + 0.5, "b": torch.arange(6.0).reshape(3, 2) - 0.25}
READ = {
    "whole": lambda x: x["a"],
    "turned": lambda x: x["b"].T,
    "some columns": lambda x: x["a"][:, [5, 0, 3]].reshape(2, 6),
    "of two": lambda x: np.concatenate([x["b"][1], x["a"][2]]),
    "of two ends": lambda x: np.concatenate([x["b"][0], x["a"][3]]),
    "of one, having looked at another": lambda x: (x["a"], x["b"])[1],
    "plus one": lambda x: np.float32(1.0) + x["b"],
    "twice": lambda x: 2 * x["b"],
    "added up": lambda x: x["a"] + x["a"][::-1],
    "repeated": lambda x: np.repeat(x["b"], 2, axis=0),
    "negative": lambda x: -x["a"],
    "mirrored": lambda x: 5 - x["b"],
    "squared": lambda x: x["b"] ** 2,
    "made up": lambda x: np.ones(3, np.float32),
}


def reading(*names):
    leaves = {name: leaf.clone() for name, leaf in LEAVES.items()}
    filed = Filed(leaves, {}, {})
    return {name: Source(name, lambda name=name: READ[name](filed)) for name in names}, filed, leaves


@pytest.mark.parametrize(
    "name",
    ["whole", "turned", "some columns", "of two", "of two ends", "of one, having looked at another", "plus one"],
)
def test_what_is_arranged_otherwise_is_replaced_and_nothing_beside_it(name):
    weights, filed, leaves = reading(name)
    replacing = Replacing(weights, filed, leaves)
    before = weights[name].read().copy()
    new = before + 8 * np.arange(before.size).reshape(before.shape)
    with replacing.replaced({name: new}) as held:
        np.testing.assert_array_equal(held[name], new)
        np.testing.assert_array_equal(weights[name].read(), before)
        changed = sum(int((leaves[leaf] != LEAVES[leaf]).sum()) for leaf in leaves)
        assert changed == before.size - 1  # the first number got nothing
    assert all(torch.equal(leaves[leaf], LEAVES[leaf]) for leaf in leaves)
    assert not filed.kept


def test_one_replacement_within_another_ends_with_the_outer_one_s_numbers_and_what_was_there_first_is_still_read():
    weights, filed, leaves = reading("whole", "turned")
    replacing = Replacing(weights, filed, leaves)
    before = weights["whole"].read().copy()
    with replacing.replaced({"whole": 2 * before}):
        with replacing.replaced({"whole": 3 * before, "turned": np.ones((2, 3), np.float32)}):
            np.testing.assert_array_equal(leaves["a"], 3 * before)
            np.testing.assert_array_equal(weights["whole"].read(), before)
        np.testing.assert_array_equal(leaves["a"], 2 * before)
        np.testing.assert_array_equal(weights["whole"].read(), before)
        assert torch.equal(leaves["b"], LEAVES["b"])
    assert torch.equal(leaves["a"], LEAVES["a"])


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_numbers_are_written_with_all_the_digits_that_a_parameter_has(kind):
    leaves = {"a": LEAVES["a"].to(kind)}
    filed = Filed(leaves, {}, {})
    new = np.linspace(0, 1, 24, dtype=np.float64).reshape(4, 6) / 3
    with Replacing({"whole": Source("whole", lambda: filed["a"])}, filed, leaves).replaced({"whole": new}):
        assert torch.equal(leaves["a"], torch.from_numpy(new).to(kind))


def test_what_a_replacement_gives_stays_what_it_was():
    """A copy: what is written into the memory afterwards is not seen in it."""
    weights, filed, leaves = reading("whole")
    with Replacing(weights, filed, leaves).replaced({"whole": np.ones((4, 6), np.float32)}) as held:
        pass
    np.testing.assert_array_equal(held["whole"], np.ones((4, 6)))
    assert torch.equal(leaves["a"], LEAVES["a"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("twice", "computed from b"), ("added up", "computed from a"), ("repeated", "computed from b"), ("negative", "computed from a"),
        ("mirrored", "computed from b"),
        ("squared", "computed from b"), ("made up", "no tensor of the model"),
    ],
)  # fmt: skip
def test_what_is_computed_cannot_be_replaced(name, why):
    replacing = Replacing(*reading(name))
    assert list(replacing.replaceable) == []
    assert why in replacing.irreplaceable[name]


def test_what_is_computed_of_noughts_is_not_there_although_it_is_the_same():
    """0.95 of nought is nought; of what replaces it, it is not."""
    leaves = {"a": torch.zeros(2, 3)}
    filed = Filed(leaves, {}, {})
    replacing = Replacing({"most": Source("most", lambda: np.float32(0.95) * filed["a"])}, filed, leaves)
    assert list(replacing.replaceable) == []


def test_a_weight_that_lies_with_one_that_is_computed_would_change_that_too():
    replacing = Replacing(*reading("whole", "added up", "turned"))
    assert list(replacing.replaceable) == ["turned"]
    assert "one tensor with added up" in replacing.irreplaceable["whole"]


def test_and_so_would_one_that_lies_with_that():
    replacing = Replacing(*reading("turned", "of two", "added up"))
    assert list(replacing.replaceable) == []
    assert replacing.irreplaceable["turned"].startswith(
        "it lies in one tensor with of two, which would change too, and it lies in"
    )


def test_weights_that_have_a_place_in_common_are_tied():
    weights, filed, leaves = reading("some columns", "whole", "turned", "of two")
    assert Places(weights, filed, leaves).tied == ({"some columns", "whole", "of two", "turned"},)
    assert list(Replacing(weights, filed, leaves).tied) == [{"some columns", "whole", "of two", "turned"}]
    weights, filed, leaves = reading("some columns", "turned")
    assert Places(weights, filed, leaves).tied == ()


def test_what_cannot_be_replaced_is_tied_to_nothing():
    assert Places(*reading("some columns", "whole", "added up")).tied == ()
    replacing = Replacing(*reading("some columns", "whole", "added up", "turned"))
    assert (list(replacing.tied), list(replacing.replaceable)) == ([], ["turned"])


def test_tied_weights_that_do_not_fit_are_refused_before_anything_is_written():
    weights, filed, leaves = reading("some columns", "whole")
    replacing = Replacing(weights, filed, leaves)
    whole = weights["whole"].read() + 1
    unlike = {"whole": whole, "some columns": weights["some columns"].read()}
    with pytest.raises(OptionError, match=r"lie in the same memory \(a\)"), replacing.replaced(unlike):
        pass
    assert torch.equal(leaves["a"], LEAVES["a"])
    some = whole[:, [5, 0, 3]].reshape(2, 6)
    with replacing.replaced({"whole": whole, "some columns": some}) as held:
        np.testing.assert_array_equal(held["some columns"], some)
