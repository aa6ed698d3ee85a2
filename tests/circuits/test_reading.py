"""Motifs from TOML: the built-in ones, and every way in which a file can be wrong."""

import pytest

from llmtrace.circuits import built_in, read_motifs
from llmtrace.circuits.motif import Expectation
from llmtrace.errors import CircuitError

GOOD = """
[motif.offset-two]
title  = "Looks two back"
paper  = "mine"
roles  = { head = "head" }
where  = { head = "pattern[q, q - 2]" }
expect = { head = ">= 0.5" }
check  = { ablate = "head", metric = "nll", effect = "> 0.1" }
"""
PAIR = """
[motif.pair]
roles  = { a = "head", b = "head", c = "head" }
where  = { a = "pattern[q, q - 1]", b = "pattern[q, self]", c = "pattern[q, bos]" }
expect = { a = ">= 0.5", b = "<= 0.2", c = "> 0", "a->c<v>" = "kappa >= 1.5" }
order  = "a < b < c"
edges  = ["a -> c<v>", "b->c<q>"]
"""


@pytest.fixture
def read(tmp_path):
    def reading(text):
        file = tmp_path / "own.toml"
        file.write_text(text, encoding="utf-8")
        return read_motifs(file)

    return reading


def test_a_motif_of_ones_own(read):
    (motif,) = read(GOOD)
    assert (motif.name, motif.roles, motif.expect["head"]) == ("offset-two", ("head",), Expectation(">=", 0.5))
    assert motif.check is not None
    assert motif.check.effect == Expectation(">", 0.1)


def test_roles_order_and_edges(read):
    (motif,) = read(PAIR)
    assert motif.order == (("a", "b"), ("b", "c"))
    assert [(str(edge), edge.expect) for edge in motif.edges] == [
        ("a->c<v>", Expectation(">=", 1.5)),
        ("b->c<q>", None),
    ]
    assert motif.title == "pair"


def test_every_built_in_motif_names_its_paper_and_its_thresholds():
    assert set(built_in()) == {"previous-token", "duplicate-token", "induction", "first-token", "self", "local-window"}
    for motif in built_in().values():
        assert motif.title
        assert "20" in motif.paper
        assert set(motif.expect) == set(motif.roles)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("[motif.offset-two]", "[motif.'Offset Two']", "lower-case"),
        ("[motif.offset-two]", "[other.offset-two]", "must hold tables"),
        ("[motif.offset-two]", "[[motif]]", "must hold tables"),
        ("title  =", "titel  =", "Did you mean title"),
        ('title  = "Looks two back"', "title = 3", "must be a text"),
        ('{ head = "head" }', '{ head = "mlp" }', "there is head"),
        ('{ head = "head" }', '{ other = "head" }', "each role needs both"),
        ("q - 2", "q / 2", "expression"),
        ('">= 0.5"', '"= 0.5"', "is no expectation"),
        ('">= 0.5"', '">= nan"', "is no expectation"),
        ('">= 0.5"', "0.5", "table of texts"),
        ('expect = { head = ">= 0.5" }', "", "expects nothing of the role head"),
        ('ablate = "head"', 'ablate = "tail"', "names the role tail"),
        ('"nll"', '"accuracy"', "there is nll"),
        ('metric = "nll", ', "", "lacks metric"),
        ("check  = {", "check  = { why = 1,", "has the key why"),
        ('check  = { ablate = "head", metric = "nll", effect = "> 0.1" }', "check = 1", "is no table"),
        ('paper  = "mine"', 'paper = "mine', "is no TOML"),
        ('paper  = "mine"', 'order = "head < head"', "circle"),
        ('paper  = "mine"', 'edges = ["head -> tail<k>"]', "names the role tail"),
        ('paper  = "mine"', 'edges = ["head - tail"]', "is no edge between roles"),
        ('paper  = "mine"', 'edges = "head -> head<k>"', "list of texts"),
        ('paper  = "mine"', 'edges = ["head -> head<k>"]', "no order that puts"),
    ],
)  # fmt: skip
def test_a_file_that_says_what_no_motif_may_is_refused_with_its_name(read, old, new, why):
    assert old in GOOD
    with pytest.raises(CircuitError, match=why) as caught:
        read(GOOD.replace(old, new))
    assert "own.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"a < b < c"', '"c < b < a"', "no order that puts a before c"),
        ('"a->c<v>" = ', '"a->b<v>" = ', "not among the edges"),
        ('"kappa >= 1.5"', '">= 1.5"', "kappa"),
        ('"a < b < c"', '"a < b < c < a"', "circle"),
    ],
)
def test_an_edge_without_its_order_is_refused(read, old, new, why):
    with pytest.raises(CircuitError, match=why):
        read(PAIR.replace(old, new))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(CircuitError, match="cannot be read"):
        read_motifs(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CircuitError, match="cannot be read"):
        read_motifs(tmp_path / "bytes.toml")
