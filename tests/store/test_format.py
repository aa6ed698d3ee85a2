"""The page that describes the format says what is so: its example runs, its schema holds, its lists are complete."""

import json
import struct
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from llmtrace import safetensors_header as header
from llmtrace.model import Model
from llmtrace.store import jsonschema as generator
from llmtrace.store import manifest
from tests.specs import SPECS, WeighedSession, equations
from tests.store.conftest import File, every_type

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = DOCS / "schemas" / "trace-manifest.schema.json"


def test_the_schema_in_the_docs_is_the_one_of_the_records():
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(generator.manifest_schema()))
    jsonschema.Draft202012Validator.check_schema(generator.manifest_schema())


@pytest.mark.parametrize("name", SPECS)
def test_a_real_manifest_keeps_to_the_schema(name, tmp_path):
    trace = Model(WeighedSession(equations(SPECS[name]))).trace([1, 2, 3])
    trace.save(tmp_path / "a.trace")
    jsonschema.validate(File(tmp_path / "a.trace").manifest, json.loads(SCHEMA.read_text()))


def test_so_does_one_with_every_type_and_cut(tmp_path):
    every_type().save(tmp_path / "a.trace")
    jsonschema.validate(File(tmp_path / "a.trace").manifest, json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.update(extra=1),
        lambda m: m["spec"].update(d_model="12"),
        lambda m: m["spec"]["blocks"][0]["branches"][0]["module"].update(record="Popen"),
        lambda m: m["spec"]["blocks"][0]["branches"][0]["module"].pop("record"),
        lambda m: m["signals"][0].pop("sha256"),
        lambda m: m["tokens"][0].update(id="1"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(file, spoil):
    spoil(file.manifest)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(file.manifest, json.loads(SCHEMA.read_text()))


def test_the_page_names_every_type_limit_and_version():
    page = (DOCS / "format.md").read_text(encoding="utf-8")
    for name, stored in manifest.DTYPES.items():
        assert f"`{stored}`" in page, name
    for number in (f"{header.LONGEST_HEADER:_}".replace("_", " "), str(header.DEEPEST), str(manifest.FORMAT_VERSION)):
        assert number in page
    for key in (manifest.MANIFEST_KEY, manifest.DIGEST_KEY):
        assert f"`{key}`" in page


def test_a_trace_can_be_read_with_what_the_page_says_and_nothing_of_ours(saved, trace):
    data = saved.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    said = json.loads(head["__metadata__"]["llmtrace"])
    assert [entry["site"] for entry in said["signals"]] == list(trace)
    assert (8 + length) % 8 == 0
    for entry in said["signals"]:
        start, stop = head[entry["site"]]["data_offsets"]
        kind = {"float32": "<f4", "int64": "<i8"}[entry["dtype"]]
        array = np.frombuffer(data[8 + length + start : 8 + length + stop], kind).reshape(entry["shape"])
        np.testing.assert_array_equal(array, trace[entry["site"]].array)
