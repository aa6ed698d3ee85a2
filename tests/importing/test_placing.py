"""What a name in a dump means: what the map says of it first; and many differences in one line."""

from __future__ import annotations

import llmtrace
from llmtrace.importing.placing import told
from tests.importing.conftest import IDS, recorded


def test_what_a_map_says_goes_before_what_a_name_says_by_itself():
    model, trace = recorded()
    dump = {
        "blocks.0.resid_mid": trace["blocks.0.resid_pre"].array,
        "hook_embed": trace["embed"].array,
        "blocks.1.hook_resid_pre": trace["blocks.1.resid_mid"].array,
    }
    names = {"blocks.0.resid_mid": "blocks.0.resid_pre", "blocks.1.hook_resid_pre": "blocks.1.resid_mid"}
    found = llmtrace.import_dump(dump, model, IDS, names=names).trace
    assert list(found) == ["embed", "blocks.0.resid_pre", "blocks.1.resid_mid"]
    assert all(found[site].array.tobytes() == trace[site].array.tobytes() for site in found)


def test_of_many_differences_the_first_are_told_and_the_others_counted():
    assert told(["a", "b", "c"], 3) == "a; b; c"
    assert told(["a", "b", "c", "d"], 2) == "a; b; and 2 more"
    layers = [f"blocks.{layer}.ln1 is odd" for layer in range(9)]
    assert told(["x", *layers, "y"], 2) == "x; blocks.L.ln1 is odd (9 times); and 1 more"
    assert told([str(number) * 2 for number in range(14)]).endswith("; 1111; and 2 more")
