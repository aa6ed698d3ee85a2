"""What is run and what is read: given prompts, built-in ones, those of saved traces; and what is refused."""

from __future__ import annotations

import pytest

import llmtrace
from llmtrace.comparison.probes import GIVEN, TRACED, RefusedPromptError, asked, readable, recorded
from llmtrace.comparison.prompt_sets import FULL, QUICK
from llmtrace.comparison.tokens import Read, read_by_both
from llmtrace.errors import OptionError, PromptError
from llmtrace.trace import Token


@pytest.fixture(scope="module")
def model():
    with llmtrace.open("reference:builtin:induction") as opened:
        yield opened


class Bytes:
    """A token a byte."""

    def encode(self, text, *, special=True):
        return list(text.encode())

    def token(self, id):
        return Token(id, chr(id))


class OfBytes:
    """A model of which nothing but its tokenizer is asked."""

    tokenizer = Bytes()

    def tokens(self, prompt):
        return [self.tokenizer.token(id) for id in self.tokenizer.encode(prompt)]


def test_texts_are_read_under_their_numbers_and_ids_are_not():
    found = asked(None, ["a", [1, 2], "b"], 9, None)
    assert (found.prompts, found.texts, found.untold) == (("a", [1, 2], "b"), ((0, "a"), (2, "b")), "")
    assert asked(None, [[1, 2]], 9, None).untold == GIVEN


def test_built_in_texts_are_run_where_a_tokenizer_tells_their_words_apart():
    found = asked(OfBytes(), None, 256, None)
    texts = tuple(each.text for each in QUICK)
    assert found.prompts == texts
    assert found.texts == tuple(enumerate(texts))
    assert [found.name(at) for at in range(4)] == ["prose", "code", "numbers", "repeats"]
    assert asked(OfBytes(), None, 256, None, "quick") == found


def test_a_text_that_is_longer_than_the_context_is_run_cut_and_read_whole():
    found = asked(OfBytes(), None, 256, 80, "full")
    assert len(found.prompts) == len(found.texts) == len(FULL)
    for prompt, (number, text), probe in zip(found.prompts, found.texts, FULL, strict=True):
        whole = list(probe.text.encode())
        assert text == probe.text == found.words(number)
        assert (prompt if isinstance(prompt, list) else list(prompt.encode())) == whole[:80]
        assert isinstance(prompt, str) == (len(whole) <= 80)


def test_a_text_that_is_read_as_ids_beyond_the_vocabulary_is_not_run():
    found = asked(OfBytes(), None, 128, None)
    assert [each.name for each in found.probes] == ["prose", "code", "repeats"]


def test_prompts_and_a_set_are_one_too_many(model):
    with pytest.raises(OptionError, match="give one of the two"):
        asked(None, ["a"], 9, None, "full")
    with pytest.raises(OptionError, match="no set of prompts called"):
        asked(None, None, 9, None, "fool")
    with pytest.raises(OptionError, match="give none"):
        recorded([model.trace([0, 1, 6], capture="logits")], None, "full")


def test_where_built_in_prompts_are_ids_texts_are_read_all_the_same(model):
    found = asked(model, None, model.spec.vocab, model.spec.context)
    assert all(isinstance(id, int) for prompt in found.prompts for id in prompt)
    assert {number for number, _ in found.texts} == {None}
    spelled = found.texts[-1][1]
    assert len(spelled.split()) > 5 and "<bos>" not in spelled
    assert len(model.tokens(spelled)) == len(spelled.split()) + 1


def test_a_text_that_the_reference_reads_as_one_unknown_word_tells_nothing_and_is_not_read(model):
    class Unknowing:
        """Reads each word that it does not know as `<bos>`, and says nothing."""

        token = staticmethod(model.tokenizer.token)

        def encode(self, text, *, special=True):
            return [0, *(model.tokenizer.find(word) or 0 for word in text.split())]

    class Model:
        tokenizer, info, spec = Unknowing(), model.info, model.spec

    found = asked(Model(), None, model.spec.vocab, model.spec.context)
    ((number, text),) = found.texts
    assert number is None and set(text.split()) <= set("abcdefghijklmno")
    assert read_by_both(Model.tokenizer, model.tokenizer, found.texts) == Read()


def test_without_a_tokenizer_there_is_nothing_to_read():
    found = asked(None, None, 100, 8)
    assert found.texts == () and found.untold == ""
    assert all(len(prompt) <= 8 and max(prompt) < 100 for prompt in found.prompts)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("a f e", r"prompts is a list, and this is one text: give prompts=\['a f e'\]"),
        ([0, 1, 6], r"give prompts=\[\[0, 1, 6\]\]"),
        ([], "at least one"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused_with_the_fix(given, says):
    with pytest.raises(PromptError, match=says):
        asked(None, given, 9, None)


def test_a_prompt_that_cannot_be_run_is_told_by_its_number_before_any_is(model):
    with pytest.raises(RefusedPromptError, match="Prompt 2: Token id 99") as caught:
        readable(model, ["a f", [0, 99]])
    assert caught.value.number == 1
    assert caught.value.why.startswith("Token id 99")


def test_saved_traces_have_their_own_ids(model):
    one, two = model.trace([0, 1, 6], capture="logits"), model.trace([0, 1, 7], capture="logits")
    assert (recorded([one, one], None).prompts, recorded([one], None).untold) == (([0, 1, 6],), TRACED)
    with pytest.raises(OptionError, match="different tokens"):
        recorded([one, two], None)
    with pytest.raises(OptionError, match="give none"):
        recorded([one], ["a"])
