"""The quick reader of GGUF files gives what the package gguf gives, and leaves the package as it was."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

import numpy as np
from transformers.modeling_gguf_pytorch_utils import _gguf_parse_value, load_gguf_checkpoint

from llmtrace_torch.gguf_model import alone
from llmtrace_torch.gguf_quick import QuickReader, quick
from tests.backends.torch.gguf_files import write
from tests.backends.torch.test_gguf import write as write_llama

ARRAYS = {
    "texts": ["a", "", "naïve 日本", "x" * 300], "no texts": [], "integers": [3, -1, 2**31 - 1], "numbers": [0.5, -1e-3],
    "truths": [True, False], "one text": ["only"],
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    """A file with an array of each kind, and one of arrays' neighbours behind them."""
    writer = gguf.GGUFWriter(tmp_path / "arrays.gguf", "llama")
    for name, values in ARRAYS.items():
        if values:
            writer.add_array(f"test.{name}", values)
    writer.add_uint32("test.after", 7)
    writer.add_tensor("token_embd.weight", np.ones((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "arrays.gguf"


def read(reader):
    """Fields as transformers reads them, with what it looks at besides; and the tensors."""
    fields = {
        name: (
            [_gguf_parse_value(field.parts[place], field.types) for place in field.data],
            field.data,
            field.types,
            len(field.parts),
        )
        for name, field in reader.fields.items()
    }
    return fields, [(tensor.name, tensor.data_offset, tensor.data.tobytes()) for tensor in reader.tensors]


def test_every_field_and_tensor_is_what_the_package_reads(path):
    found = read(QuickReader(path))
    assert found == read(gguf.GGUFReader(path))
    assert found[0]["test.texts"][0] == ARRAYS["texts"] and found[0]["test.after"][0] == [7]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "bloom", "gemma2"])
def test_what_transformers_makes_of_a_file_is_the_same_to_the_bit(architecture, tmp_path):
    from llmtrace.gguf_header import read_header
    from llmtrace_torch import gguf_model

    path = tmp_path / "tiny.gguf"
    write(path, architecture)
    model = gguf_model.skeleton(gguf_model.config_of(read_header(path)))

    def load():
        return load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model, torch_dtype=torch.float32)

    slow = load()
    with quick():
        fast = load()
    tensors, expected = fast.pop("tensors"), slow.pop("tensors")
    assert fast == slow and list(tensors) == list(expected) and len(tensors) > 10
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_the_vocabulary_is_the_same(tiny, tmp_path):
    path = tmp_path / "tiny.gguf"
    write_llama(path, tiny("llama"), tokens=True)
    slow = load_gguf_checkpoint(str(path))
    with quick():
        assert load_gguf_checkpoint(str(path)) == slow
    assert len(slow["tokenizer"]["tokens"]) == 261


def test_the_package_is_as_it_was_afterwards_also_after_an_error(path):
    kept = gguf.GGUFReader, gguf.get_tensor_name_map
    with alone(path):
        assert gguf.GGUFReader is QuickReader
        table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        assert table is gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == kept
    with pytest.raises(KeyError), quick():
        raise KeyError
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == kept


def test_threads_take_turns_so_that_what_stood_before_is_put_back():
    from threading import Event, Thread

    kept, inside = gguf.GGUFReader, Event()

    def other():
        with quick():
            inside.set()

    thread = Thread(target=other)
    with quick():
        thread.start()
        assert not inside.wait(0.05), "the other waits"
    thread.join(5)
    assert inside.is_set() and gguf.GGUFReader is kept


def test_a_directory_opens_without_the_package(tiny):
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['gguf'] = None; import llmtrace; "
        f"llmtrace.open({str(tiny('llama'))!r}, backend='torch').close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
