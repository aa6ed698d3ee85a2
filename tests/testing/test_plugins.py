"""The checks for methods and viewers pass what is sound, and catch each thing that is not, by its law."""

from __future__ import annotations

import html
import json
from itertools import count

import attrs
import numpy as np
import pytest

from llmtrace.errors import LLMTraceError, PluginError, SchemaViolationError, UnsupportedModelError
from llmtrace.influence import Answer, Contract, HeadScore, Method
from llmtrace.testing import check_method, check_viewer


class Sound:
    """Dot products of the embeddings with the target's column of the unembedding, less the foil's."""

    sites = ("embed",)

    def __init__(self, task):
        self.task = task
        W_U = task.equations.weights["unembed.W_U"]
        self.direction = W_U[:, task.target.id] - (0 if task.foil is None else W_U[:, task.foil.id])

    def layer(self, layer, signals):
        pass

    def finish(self, ends):
        self.row = ends["embed"] @ self.direction

    def answer(self):
        return Answer(np.where(np.arange(len(self.row)) <= self.task.position, self.row, 0))


ROW = Method("mine", "Mine", "T W", "T d", None, "nobody", Contract("o", "f", "p", "x", "u"), Sound)


def doing(**members):
    return attrs.evolve(ROW, fold=type("Wrong", (Sound,), members))


def answering(change, **row):
    return attrs.evolve(doing(answer=lambda self: change(self, Sound.answer(self))), **row)


ticks = count()


def whole(self, answer):
    """Shares of all tokens of the prompt, those after the position among them."""
    return Answer(answer.scores / (1 + np.abs(self.row).sum()))


def aimless(self, task):
    self.task, self.direction = task, task.equations.weights["unembed.W_U"][:, 1]


def without_foil(self, task):
    Sound.__init__(self, attrs.evolve(task, foil=None))


def writes(self, task):
    Sound.__init__(self, task)
    task.equations.weights["unembed.W_U"][0] *= 2


def refuses(self, task):
    raise UnsupportedModelError("no model pleases")


def test_a_sound_method_passes():
    check_method(ROW)


@pytest.mark.parametrize(
    ("row", "kind", "law"),
    [
        (attrs.evolve(ROW, needs="Q"), AssertionError, "has `needs` 'Q'"),
        (attrs.evolve(ROW, contract=attrs.evolve(ROW.contract, unit="")), AssertionError, "has `unit` ''"),
        (attrs.evolve(ROW, needs="T"), PluginError, "reads the weight unembed.W_U"),
        (answering(lambda self, answer: answer.scores), PluginError, "no `Answer`"),
        (answering(lambda self, answer: Answer(self.row)), SchemaViolationError, "not 0 after position"),
        (answering(lambda self, answer: Answer(answer.scores * np.nan)), SchemaViolationError, "NaN"),
        (doing(sites=("embeds",)), PluginError, "no site"),
        (answering(lambda self, answer: Answer(answer.scores + answer.scores * next(ticks))), AssertionError, "the same scores again"),
        (answering(whole), AssertionError, "Is the task's `position` read"),
        (answering(lambda self, answer: attrs.evolve(answer, completeness_gap=0.5), completeness="Σ"), AssertionError, r"identity \(Σ\) by 5"),
        (answering(lambda self, answer: attrs.evolve(answer, completeness_gap=np.nan), completeness="Σ"), AssertionError, "identity"),
        (answering(lambda self, answer: answer, completeness="Σ"), AssertionError, "neither its gap nor a warning"),
        (answering(lambda self, answer: attrs.evolve(answer, table=(HeadScore("x", np.int64(0), 0, 1.0, 1, 1.0),))), AssertionError, "no JSON"),
        (doing(__init__=aimless), AssertionError, "for every target"),
        (doing(__init__=without_foil), AssertionError, "with a foil as without"),
        (doing(__init__=writes), (AssertionError, PluginError), "weights are not to be written|read-only"),
        (doing(__init__=refuses), AssertionError, "none of the models here: no model pleases"),
    ],
)  # fmt: skip
def test_a_method_that_breaks_a_law_is_caught_by_that_law(row, kind, law):
    with pytest.raises(kind, match=law):
        check_method(row)


def test_the_gap_that_is_allowed_can_be_named():
    row = answering(lambda self, answer: attrs.evolve(answer, completeness_gap=0.5), completeness="Σ")
    check_method(row, gap=0.6)


def rows(influences):
    return [
        (each, place, token, float(score))
        for each in influences
        for place, (token, score) in enumerate(zip(each.tokens, each.scores, strict=True))
    ]


def lines(influences, escape):
    """Sources and tokens, each in the form that `escape` gives it."""
    heads = [escape(each.model.source) for each in influences]
    return heads + [f"{escape(token.text or str(token.id))} {score:.3g}" for _, _, token, score in rows(influences)]


def viewer(suffix, render):
    return type("Mine", (), {"name": "mine", "suffix": suffix, "render": staticmethod(render)})


def page(escape, source=None, text=lambda token: token.text or str(token.id)):
    source = source or escape

    def render(influences, lens=None):
        cells = [f"<b>{escape(text(token))}</b> {score:.3g}" for _, _, token, score in rows(influences)]
        return "".join([*(source(each.model.source) for each in influences), *cells]) or "nothing"

    return render


def svg(escape):
    return lambda influences, lens=None: (
        f"<svg>{''.join(f'<text>{each}</text>' for each in lines(influences, escape))}</svg>"
    )


def printable(text):
    return "".join(each if each.isprintable() else "?" for each in text)


def as_json(strict):
    def render(influences, lens=None):
        documents = [each.to_json() for each in influences]
        if not strict:
            documents = [document | {"own": float("nan")} for document in documents]
        return json.dumps(documents)

    return render


def table(quote):
    return lambda influences, lens=None: "\n".join(
        f"{quote(token.text or str(token.id))},{score}" for _, _, token, score in rows(influences)
    )


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def same(text):
    return text


@pytest.mark.parametrize(
    "sound",
    [
        viewer(".html", page(html.escape)),
        viewer(".svg", svg(lambda text: html.escape(printable(text)))),
        viewer(".json", as_json(True)),
        viewer(".csv", table(quoted)),
        viewer(".txt", lambda influences, lens=None: "\n".join(lines(influences, printable))),
        viewer(".png", lambda influences, lens=None: b"".join(each.scores.tobytes() for each in influences) or b"-"),
    ],
    ids=lambda each: each.suffix,
)
def test_a_sound_viewer_passes(sound):
    check_viewer(sound)


@pytest.mark.parametrize(
    ("wrong", "kind", "law"),
    [
        (viewer("html", page(html.escape)), AssertionError, "does not begin with a dot"),
        (viewer(".html", lambda influences, lens=None: None), PluginError, "returned NoneType"),
        (viewer(".html", lambda influences, lens: "x"), AssertionError, "whatever the scores"),
        (viewer(".html", lambda influences, lens=None: f"{len(influences[0].tokens)}"), AssertionError, "whatever the scores"),
        (viewer(".html", lambda influences, lens=None: str(lens.gap)), PluginError, "AttributeError"),
        (viewer(".html", lambda influences, lens=None: f"{influences[0].scores}"), PluginError, "IndexError"),
        (viewer(".html", lambda influences, lens=None: f"{rows(influences)} {[each.heads.max() for each in influences]}"), PluginError, "NoneType"),
        (viewer(".html", lambda influences, lens=None: ""), AssertionError, "nothing at all"),
        (viewer(".html", lambda influences, lens=None: f"{next(ticks)}"), AssertionError, "the same again"),
        (viewer(".html", page(same)), AssertionError, "'<script' into markup"),
        (viewer(".md", page(lambda text: text.replace("<script", ""))), AssertionError, "'</script' into markup"),
        (viewer(".html", page(html.escape, source=same)), AssertionError, "into markup"),
        (viewer(".html", page(html.escape, text=lambda token: token.text)), AssertionError, "show its id"),
        (viewer(".svg", svg(html.escape)), AssertionError, "no XML"),
        (viewer(".json", as_json(False)), AssertionError, "no JSON"),
        (viewer(".csv", table(same)), AssertionError, "begin a cell or a row"),
        (viewer(".txt", lambda influences, lens=None: "\n".join(lines(influences, same))), AssertionError, "move the cursor"),
    ],
)  # fmt: skip
def test_a_viewer_that_breaks_a_law_is_caught_by_that_law(wrong, kind, law):
    with pytest.raises(kind, match=law):
        check_viewer(wrong)


def test_the_checks_need_no_pytest():
    import subprocess
    import sys

    code = "import sys; from llmtrace.testing import check_method, check_viewer; print('pytest' in sys.modules, 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "False"]
    assert issubclass(PluginError, LLMTraceError)
