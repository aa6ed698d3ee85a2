"""A comparison prompt by prompt, as it is printed: what several prompts come to, by hand."""

from __future__ import annotations

import math

from llmtrace.cli.compared_prompts import by_prompt, matrix
from llmtrace.comparison.by_prompt import PromptErrors
from llmtrace.comparison.outputs import Outputs
from llmtrace.comparison.record import Candidate, Comparison, RunPrompt
from llmtrace.trace import ModelInfo


def candidate(name, *outputs, prompts=()):
    return Candidate(ModelInfo(name, "b", "c"), "agrees", "", outputs=outputs, by_prompt=prompts)


def comparison(*candidates, prompts=("one", "two")):
    return Comparison(ModelInfo("r", "b", "c"), tuple(RunPrompt(name, name) for name in prompts), candidates)


def rows(out):
    """The cells of a table's rows, by the first of each."""
    lines = (each.replace("│", "  ") for each in out.splitlines() if each.strip())
    split = ([cell.strip() for cell in each.split("  ") if cell.strip()] for each in lines)
    return {cells[0]: cells[1:] for cells in split}


FIRST, SECOND = Outputs(0, 4, 0.25, 0.5, 0, 0.5, 0.25), Outputs(1, 4, 0.75, 1.5, 0, 1.0, 0.75)


def test_candidates_stand_beside_each_other_with_the_mean_over_prompts_and_its_error(capsys):
    """Of 0.25 and 0.75 the mean is known to 0.25, as that of 50 % and 100 % is."""
    matrix(comparison(candidate("x", FIRST, SECOND), candidate("y", SECOND), candidate("z")))
    found = rows(capsys.readouterr().out)
    assert found["mean KLD, same top"] == ["one", "two", "all"]
    assert found["x"] == ["2.50e-01, 50.0%", "7.50e-01, 100.0%", "5.00e-01 ± 2e-01, 75.0% ± 25.0"]
    assert found["y"] == ["–", "7.50e-01, 100.0%", "7.50e-01, 100.0%"]
    assert found["z"] == ["–", "–", "–"]


def test_below_several_prompts_stands_what_they_come_to(capsys):
    prompts = (PromptErrors(0, "embed", 1e-6, 1e-6, 1.0, 0.5), PromptErrors(1, "logits", 3e-6, 1e-6, 3.0, None))
    one = candidate("x", FIRST, SECOND, prompts=prompts)
    by_prompt(comparison(one), one)
    found = rows(capsys.readouterr().out)
    assert found["one"] == ["4", "2.50e-01", "5.00e-01", "50.0%", "25.00%", "embed", "1.0e+00", "5.0e-01"]
    assert found["two"] == ["4", "7.50e-01", "1.50e+00", "100.0%", "75.00%", "logits", "3.0e+00", "–"]
    assert found["mean of 2"] == ["5.00e-01", "1.00e+00", "75.0%", "50.00%", "2.0e+00", "5.0e-01"]
    assert found["least"] == ["2.50e-01", "5.00e-01", "50.0%", "25.00%", "1.0e+00", "5.0e-01"]
    assert found["most"] == ["7.50e-01", "1.50e+00", "100.0%", "75.00%", "3.0e+00", "5.0e-01"]
    assert found["deviation"][:2] == [f"{math.sqrt(0.125):.2e}", f"{math.sqrt(0.5):.2e}"]


def test_one_prompt_comes_to_itself_and_none_to_nothing(capsys):
    one = candidate("x", FIRST, prompts=(PromptErrors(0, "", 0.0, 0.0, 0.0, None),))
    by_prompt(comparison(one), one)
    found = rows(capsys.readouterr().out)
    assert found["one"][-3:] == ["–", "0", "–"]
    assert not any(each.startswith("mean of") for each in found)
    by_prompt(comparison(candidate("x")), candidate("x"))
    assert capsys.readouterr().out == ""
