"""From metadata to a spec: what llama.cpp computes. Held to the spec that was written, and to llama.cpp's own logits."""

from __future__ import annotations

import re
import struct

import attrs
import numpy as np
import pytest

from llmtrace.errors import LLMTraceError, ModelOpenError, UnsupportedModelError
from llmtrace.families import family as family_of
from llmtrace.gguf_header import read_header
from llmtrace.schema.steps import steps
from llmtrace.spec import Linear, LongRope, Yarn
from llmtrace.testing.model import FAMILIES
from llmtrace_llamacpp.architectures import ARCHITECTURES
from llmtrace_llamacpp.metadata import spec_of
from llmtrace_llamacpp.writing import ARCHITECTURE_OF
from tests.backends.llamacpp.tiny import LLAMA3, LONG, MODELS, STRETCHED, YARN, changed, off, write_gguf

OTHERWISE = {
    "mistral": {"family", "window"},
    "gpt_neox": {"act"},
    "phi3": {"window"},
    "qwen2": {"window"},
    "starcoder2": {"window"},
    "gpt_oss": {"truncate", "limit"},
    "qwen3_moe": {"renormalise"},
    "cohere2": {"window", "rotary"},
    "smollm3": {"window", "rotary"},
    "gemma3_text": {"window", "theta", "scale"},
    "olmo3": {"window"},
    "exaone4": {"window", "rotary"},
    "dots1": {"window"},
    "mpt": {"act"},
    "falcon": {"context", "rotary", "slopes", "act"},
}
"""What llama.cpp does otherwise than the family: it has no window for some, GELU by the tanh form, layers by its own pattern."""


def differences(a, b, name=""):
    """The names of the fields in which two records differ, but for rounding to float32."""
    if attrs.has(type(a)) and type(a) is type(b):
        return {d for f in attrs.fields(type(a)) for d in differences(getattr(a, f.name), getattr(b, f.name), f.name)}
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return {d for x, y in zip(a, b, strict=True) for d in differences(x, y, name)}
    if isinstance(a, float) and isinstance(b, float):
        return set() if a == pytest.approx(b, rel=1e-7) else {name}
    return set() if a == b else {name}


@pytest.mark.parametrize("family", [family for family in ARCHITECTURE_OF if family != "phi"])
def test_the_spec_is_that_of_the_model_but_for_what_llama_cpp_does_otherwise(family, tiny):
    model, path = tiny(family)
    found = spec_of(read_header(path))
    assert differences(model.spec, found) == OTHERWISE.get(family, set())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sites_and_their_shapes_are_those_of_the_model(family, tiny):
    model, path = tiny(family)
    ours, theirs = steps(spec_of(read_header(path))), steps(model.spec)
    assert list(ours) == list(theirs)
    assert [step.shape(5) for step in ours.values()] == [step.shape(5) for step in theirs.values()]


HALVES = 1e-6
GELU = 1e-3
"""Its table has half precision."""


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_computes_what_the_spec_and_the_weights_say(name, tmp_path):
    """Its logits are those of the equations: an oracle that knows nothing of our reading of the file."""
    model = changed(MODELS[name][0], **MODELS[name][1])
    path = write_gguf(model, tmp_path / "tiny.gguf")
    acts = {getattr(branch.module, "act", "") for block in model.spec.blocks for branch in block.branches}
    assert off(path, model.tokens) < (GELU if acts & {"gelu", "gelu_tanh"} else HALVES)


def test_a_stretch_is_read_as_it_was_written(tmp_path):
    def read(family, **overrides):
        found = spec_of(read_header(write_gguf(changed(family, **overrides), tmp_path / "tiny.gguf")))
        return found.blocks[0].attention.rotary

    assert read("llama").scaling is None
    assert read("llama", rope_scaling=STRETCHED).scaling == Linear(4.0)
    assert read("llama", rope_scaling=YARN).scaling == Yarn(4.0, 16)
    found = read("phi3", rope_scaling=LONG, original_max_position_embeddings=512).scaling
    assert (found.context, found.short) == (512, pytest.approx(LONG["short_factor"], rel=1e-7))
    table = read("llama", rope_scaling=LLAMA3).scaling
    assert isinstance(table, LongRope) and table.short == table.long and len(table.short) == 12
    assert table.short[0] == 1.0 and table.short[-1] == 8.0 and list(table.short) == sorted(table.short)


def test_every_architecture_is_of_a_family_that_the_core_knows():
    for architecture in ARCHITECTURES.values():
        for name in filter(None, (architecture.family, architecture.mixture, architecture.windowed)):
            assert family_of({"model_type": name, "num_hidden_layers": 2, "vocab_size": 9, "hidden_size": 8, "multi_query": True,
                              "new_decoder_architecture": False}).weights  # fmt: skip


def with_value(source, key: str, kind: int, value: bytes, target):
    """The file with another type and value of one scalar of four bytes in its metadata."""
    data = source.read_bytes()
    place = data.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key)
    assert struct.unpack_from("<I", data, place)[0] in (4, 6)
    target.write_bytes(data[:place] + struct.pack("<I", kind) + value + data[place + 8 :])
    return target


REFUSED = {
    "more layers than there are": ("llama.block_count", 4, b"\xff\xff\xff\xff", "block_count = 4294967295, and has tensors of 3"),
    "fewer layers than there are": ("llama.block_count", 4, struct.pack("<I", 2), "block_count = 2, and has tensors of 3 blocks"),
    "a fraction of layers": ("llama.block_count", 6, struct.pack("<f", 3.0), "block_count = 3.0"),
    "no heads": ("llama.attention.head_count", 4, bytes(4), "num_attention_heads = 0"),
    "more heads than memory": ("llama.attention.head_count", 4, b"\xff\xff\xff\xff", "num_attention_heads = 4294967295"),
    "heads of another width": ("llama.attention.value_length", 4, struct.pack("<I", 8), "has shape"),
    "another width": ("llama.embedding_length", 4, struct.pack("<I", 32), "has shape"),
    "an epsilon that is no number": ("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", np.nan), "which is no finite number"),
    "a negative epsilon": ("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", -1.0), "must not be negative"),
    "a rotary base of nought": ("llama.rope.freq_base", 6, bytes(4), "theta = 0.0"),
    "an odd rotary width": ("llama.rope.dimension_count", 4, struct.pack("<I", 7), "dimension_count = 7; it must be an even number"),
    "a rotary width beyond the head": ("llama.rope.dimension_count", 4, struct.pack("<I", 64), "dimension_count = 64"),
    "a context of nothing": ("llama.context_length", 4, bytes(4), "context"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_metadata_that_make_no_model_are_one_line_that_names_the_file(fault, tiny, tmp_path):
    from llmtrace_llamacpp.weights import open_gguf

    key, kind, value, message = REFUSED[fault]
    path = with_value(tiny("llama")[1], key, kind, value, tmp_path / "spoilt.gguf")
    with pytest.raises(ModelOpenError, match=message) as caught:
        open_gguf(path)
    assert "spoilt.gguf" in str(caught.value) and "\n" not in str(caught.value)


def test_any_value_of_any_type_is_read_or_refused(tiny, tmp_path):
    from llmtrace_llamacpp.weights import open_gguf

    refused = []
    for family in FAMILIES:
        path = tiny(family)[1]
        header = read_header(path)
        for key, value in header.metadata.items():
            if not key.startswith(header.architecture) or isinstance(value, bool | str):
                continue
            for kind, spoilt in (
                (4, bytes(4)),
                (4, b"\xff" * 4),
                (6, struct.pack("<f", -2.5)),
                (6, b"\xff" * 4),
                (5, b"\xff" * 4),
            ):
                try:
                    open_gguf(with_value(path, key, kind, spoilt, tmp_path / "spoilt.gguf"))
                except LLMTraceError as error:
                    refused.append(str(error))
    assert len(refused) > 200 and not [text for text in refused if "\n" in text or "spoilt.gguf" not in text]


def test_an_architecture_that_is_not_in_the_table_is_named_with_those_that_are(tiny, tmp_path):
    path = tmp_path / "other.gguf"
    path.write_bytes(tiny("llama")[1].read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lllma"))
    with pytest.raises(
        UnsupportedModelError,
        match=r"architecture lllma, which is not in the table. Did you mean llama.* Known are llama, ",
    ):
        spec_of(read_header(path))


@pytest.mark.slow
def test_smollm2_is_what_transformers_reads(smollm2):
    pytest.importorskip("llmtrace_torch")
    import llmtrace

    with llmtrace.open(smollm2, backend="torch") as model:
        assert in_single(spec_of(read_header(smollm2))) == in_single(model.spec)


def in_single(spec):
    """A spec as text, with its numbers as float32 has them: a file's header holds no others."""
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", lambda found: repr(np.float32(found[0])), repr(spec))
