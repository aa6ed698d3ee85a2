"""Bad input is one clear line and exit status 2: what is wrong, which thing it is, and what to do."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from llmtrace.plugins import plugins

MODEL = "builtin:induction"
PROMPT = "c a f e b o d c a f"
BACKENDS = [
    name for name in ("reference", "torch") if name in plugins().backends and plugins().backends[name].status == "ok"
]
every_backend = pytest.mark.parametrize("backend", BACKENDS)


@pytest.mark.parametrize("command", ["info", "trace", "influence", "lens", "verify", "view"])
@pytest.mark.parametrize("name", ["./nowhere", "nowhere-hub-id", "nowhere.gguf", "nowhere.trace", "/nowhere/at/all"])
def test_a_file_that_is_not_there(cli, command, name):
    prompted = command in ("trace", "influence", "lens") or (command == "view" and not name.endswith(".trace"))
    assert Path(name).name in cli(command, name, *([PROMPT] if prompted else [])).error


@every_backend
def test_a_path_that_is_not_there_is_said_alike_by_every_backend(cli, backend):
    error = cli("info", "./nowhere", "--backend", backend).error
    assert error == "error: There is no file or directory './nowhere'."


@pytest.mark.parametrize("command", ["info", "trace", "influence", "lens", "verify", "view"])
def test_a_directory_that_is_no_model_is_told_what_it_lacks(cli, tmp_path, command):
    prompt = [PROMPT] if command != "info" else []
    error = cli(command, ".", *prompt).error
    assert error.startswith("error: '.' is no model that ")
    assert error.endswith(" open: it lacks config.json and *.safetensors, and holds no .gguf or .onnx file.")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert cli(command, ".", *prompt).error.endswith(" open: it lacks config.json, and holds no .gguf or .onnx file.")


@every_backend
def test_an_empty_directory_is_told_what_it_lacks_by_every_backend(cli, tmp_path, backend):
    (tmp_path / "empty").mkdir()
    error = cli("info", "empty", "--backend", backend).error
    assert error == "error: empty is no checkpoint: it lacks config.json and *.safetensors."


def test_an_empty_name(cli):
    assert "MODEL is empty" in cli("info", "").error


@pytest.mark.parametrize("name", ["model.gguf", "model.onnx", "model.safetensors", "x.trace", "model"])
@pytest.mark.parametrize("content", [b"", b"GGUF", b"\x00" * 64, b"\xff" * 7], ids=["empty", "magic", "zeros", "ones"])
def test_a_file_that_is_no_model(cli, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for command in ("verify", "info") if not name.endswith(".trace") else ("verify", "view"):
        assert name in cli(command, tmp_path / name).error


@every_backend
def test_truncated_weights(cli, checkpoint, backend):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    error = cli("info", checkpoint, "--backend", backend).error
    assert "model.safetensors cannot be opened: it should have " in error
    assert error.endswith("it is truncated. Fetch it again.")


@every_backend
def test_weights_that_are_an_empty_file(cli, checkpoint, backend):
    (checkpoint / "model.safetensors").write_bytes(b"")
    assert cli("info", checkpoint, "--backend", backend).error.endswith("it is empty. Fetch it again.")


@every_backend
def test_a_config_without_weights(cli, checkpoint, backend):
    (checkpoint / "model.safetensors").unlink()
    error = cli("info", checkpoint, "--backend", backend).error
    assert "has a config.json and no weights: it lacks model.safetensors, or" in error
    assert "pip" not in error


WHERE = {
    "model.embed_tokens.weight": ((0, 2), "embed"),  # a row that the prompt does not hold may pad another
    "model.layers.1.self_attn.q_proj.weight": ((3, 5), "blocks.1.attn.q"),
    "model.layers.1.self_attn.v_proj.weight": ((3, 5), "blocks.1.attn.v"),
    "lm_head.weight": ((3, 5), "logits"),
}


@every_backend
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", WHERE)
@pytest.mark.filterwarnings("error")
def test_weights_that_are_not_finite_are_said_by_every_command_and_violate(cli, checkpoint, backend, name, value):
    """They are values, never a backend that mixes prompts up, and no warning of NumPy's reaches anyone."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    tensors[name][WHERE[name][0]] = value
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    for command, codes in (("info", {0}), ("trace", {0}), ("lens", {0, 2}), ("influence", {2}), ("verify", {1})):
        prompt = [PROMPT] if command != "info" else []
        run = cli(command, checkpoint, *prompt, "--backend", backend, "--json")
        assert run.code in codes, run.err
        (note,) = [line for line in run.err.splitlines() if line.startswith("note: ")]
        assert "NaN" in note
        assert name in note or "blocks.1.attn.W_" in note or "embed.W_E" in note or "unembed.W_U" in note
        if run.code == 2:
            assert "hold NaN or infin" in run.error
        elif command != "lens":
            assert any("NaN" in each for each in run.document["notes"])
    assert run.document["first_violated"] == WHERE[name][1]


@every_backend
def test_a_hostile_tensor_name_cannot_reach_the_terminal(cli, checkpoint, backend):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    tensors["x\x1b[2J\n\u202e" + "y" * 3000] = tensors["model.norm.weight"]
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    run = cli("info", checkpoint, "--backend", backend)
    if backend == "torch":  # transformers passes over it
        assert "note: transformers makes no use of 'x\\x1b[2J\\n\\u202eyyy" in run.err
        assert "\x1b[2J" not in run.out + run.err
        return
    assert run.error.startswith("error: 'x\\x1b[2J\\n\\u202eyyy")
    assert len(run.error) < 500
    assert "no equation of a llama model reads it" in run.error


@every_backend
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model_type": "nosuchmodel"}'])
def test_a_config_that_is_none(cli, checkpoint, backend, content):
    (checkpoint / "config.json").write_text(content, encoding="utf-8")
    error = cli("info", checkpoint, "--backend", backend).error
    assert "config.json" in error or "nosuchmodel" in error or "model_type" in error


@every_backend
def test_a_missing_tensor_is_named(cli, checkpoint, backend):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert "layers.1.mlp" in cli("info", checkpoint, "--backend", backend).error


@every_backend
def test_a_pickle_is_refused_and_never_run(cli, checkpoint, backend, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    assert "safetensors" in cli("info", checkpoint, "--backend", backend).error
    assert not (tmp_path / "owned").exists()


@every_backend
def test_a_pickle_that_is_named_itself_is_refused(cli, tmp_path, backend):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps([1]) * 9)
    for named in (["--backend", backend], []):
        error = cli("info", "pytorch_model.bin", *named).error
        assert "pickle" in error or "opens a directory with config.json and safetensors" in error
        assert "GGUF" not in error.replace(".gguf", "")
        assert "Fetch it again" not in error


@every_backend
def test_code_that_a_checkpoint_brings_is_not_run(cli, checkpoint, backend, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (checkpoint / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'owned')!r})\n", encoding="utf-8")
    error = cli("info", checkpoint, "--backend", backend).error
    assert "config.json" in error
    assert "'evil'" in error
    never = (
        "Python code of its own ('evil.py'"
        if backend == "torch"
        else "its own code (evil.py), which LLMTrace never runs"
    )
    assert never in error.replace("(evil.py", "('evil.py'" if backend == "torch" else "(evil.py")
    assert not (tmp_path / "owned").exists()


@every_backend
def test_what_only_an_open_model_can_say_is_said_alike_by_every_backend(cli, checkpoint, backend):
    """Unknown site, unknown word, target of several tokens, unknown target, id and length out of range."""
    args = [checkpoint, "--backend", backend]
    assert (
        "Did you mean blocks.0.attn.pattern" in cli("trace", *args, PROMPT, "--capture", "blocks.0.attn.patern").error
    )
    assert "is not one token but 'a' · 'b'" in cli("influence", *args, PROMPT, "--target", "a b").error
    zebra = cli("influence", *args, PROMPT, "--target", "zebra").error
    assert "The word 'zebra' is not in" in zebra or "is not one token: the tokenizer reads it as '<bos>'" in zebra
    assert "Token id 16" in cli("trace", *args, "--tokens", "1,16").error
    too_long = cli("lens", *args, "--tokens", ",".join(["1"] * 513)).error
    assert "513 tokens, over the model's context of 512: shorten it" in too_long


def test_an_unknown_site_gets_near_names(cli):
    assert (
        "Did you mean blocks.0.attn.pattern" in cli("trace", MODEL, PROMPT, "--capture", "blocks.3.attn.patern").error
    )
    assert "brace" in cli("trace", MODEL, PROMPT, "--capture", "blocks.{0..1.attn.pattern").error


def test_a_head_or_token_out_of_range(cli):
    assert "head 2" in cli("trace", MODEL, PROMPT, "--capture", "blocks.0.attn.z", "--heads", "2").error
    assert "token 11" in cli("trace", MODEL, PROMPT, "--capture", "embed", "--token-index", "11").error


def test_prompts_that_cannot_be_used(cli):
    for args, said in [
        ([], "A prompt is missing"),
        ([PROMPT, "--tokens", "1,2"], "one prompt"),
        (["--tokens", ""], "not a whole number"),
        (["--tokens", "1,x"], "'x' is not a whole number"),
        (["--tokens", "1.5"], "'1.5'"),
        (["--tokens", "16"], "Token id 16"),
        (["--tokens", "-1"], "Token id -1"),
        (["--tokens", "1..99999999999"], "too long"),
        (["--tokens", ",".join(["1"] * 513)], "513 tokens, over the model's context of 512"),
        (["zebra"], "'zebra'"),
        (["--prompt-file", "nowhere.txt"], "nowhere.txt"),
    ]:
        assert said in cli("trace", MODEL, *args).error, args


@every_backend
def test_an_empty_prompt(cli, checkpoint, backend):
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}), encoding="utf-8")
    for command in ("trace", "influence", "lens", "verify", "view"):
        error = cli(command, checkpoint, "", "--backend", backend).error
        assert error == "error: The prompt is empty: give at least one token."


def test_a_prompt_file_that_is_not_text(cli, tmp_path):
    (tmp_path / "x.txt").write_bytes(b"a\xff")
    assert "not valid UTF-8 (byte 1)" in cli("trace", MODEL, "--prompt-file", "x.txt").error


def test_text_where_there_is_no_tokenizer(cli, checkpoint):
    (checkpoint / "tokenizer.json").unlink()
    assert "--tokens 5,17,3" in cli("trace", checkpoint, PROMPT, "--backend", "reference").error
    args = [checkpoint, "--tokens", "0,1,2", "--backend", "reference", "--json"]
    assert "token id" in cli("influence", *args, "--target", "a").error
    assert cli("influence", *args, "--target", "5").document["target"]["id"] == 5


def test_options_that_a_backend_does_not_have(cli):
    assert "Did you mean dtype?" in cli("trace", MODEL, PROMPT, "-o", "dtpe=float32").error
    assert "name=value" in cli("trace", MODEL, PROMPT, "-o", "dtype").error
    assert "float16" in cli("trace", MODEL, PROMPT, "--dtype", "float16").error
    assert "'device'" in cli("trace", MODEL, PROMPT, "--device", "cuda").error
    assert "Did you mean reference?" in cli("trace", MODEL, PROMPT, "--backend", "refernce").error
    assert "exact" in cli("trace", MODEL, PROMPT, "--preset", "fast").error


@pytest.mark.parametrize("size", ["2GX", "-1", "lots", "1e9", ""])
def test_sizes_that_are_none(cli, size):
    assert "not a size" in cli("trace", MODEL, PROMPT, "--max-bytes", size).error


WRITERS = {
    "trace": ["trace", MODEL, PROMPT, "--save"],
    "influence": ["influence", MODEL, PROMPT, "--html"],
    "influence by a viewer": ["influence", MODEL, PROMPT, "--viewer", "text", "--save"],
    "view": ["view", MODEL, PROMPT, "--html"],
    "demo": ["demo", "--backend", "reference", "--html"],
}
every_writer = pytest.mark.parametrize("args", WRITERS.values(), ids=WRITERS)


@every_writer
def test_a_directory_that_is_not_there_is_said_before_the_model_is_opened(cli, tmp_path, args):
    run = cli(*args, "nowhere/x")
    assert "no directory" in run.error
    assert "nowhere" in run.error
    assert "opening" not in run.err
    run = cli(*args, tmp_path)
    assert "is a directory" in run.error
    assert "opening" not in run.err
    assert not list(tmp_path.iterdir())


@every_writer
def test_a_full_disk_leaves_the_older_file_as_it_was(cli, tmp_path, monkeypatch, args):
    (tmp_path / "x").write_text("the older one", encoding="utf-8")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    assert "No space left" in cli(*args, "x").error
    assert (tmp_path / "x").read_text(encoding="utf-8") == "the older one"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_file_that_grows_beyond_what_the_system_allows_leaves_the_older_one(tmp_path):
    """The writing itself fails here, in the middle of the data, and nothing is simulated."""
    (tmp_path / "x.trace").write_text("the older one", encoding="utf-8")
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        f"from llmtrace.cli import main\nmain(['trace', {MODEL!r}, {PROMPT!r}, '--save', 'x.trace', '-q'])\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: x.trace could not be written: File too large. Nothing was changed.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["x.trace"]
    assert (tmp_path / "x.trace").read_text(encoding="utf-8") == "the older one"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("args", [["info", MODEL, "--json"], ["trace", MODEL, PROMPT], ["--help"]], ids=str)
def test_standard_output_that_is_full_is_one_line(args):
    command = [sys.executable, "-m", "llmtrace.cli", *args]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith(("opening", "backend"))] == [
        "error: What was to be read or written: No space left on device."
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="names of POSIX")
def test_a_prompt_that_is_not_utf8():
    command = [sys.executable, "-m", "llmtrace.cli", "trace", MODEL, b"a\xff"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: The prompt is not valid UTF-8.")
    assert done.stderr.count(b"\n") == 1


def test_a_hostile_token_cannot_reach_the_terminal(cli, checkpoint, validate):
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    hostile = "\x1b[2J\x1b]0;owned\x07\u202e[bold]\u200b"
    vocab = {hostile if word == "e" else word: id for word, id in tokenizer["model"]["vocab"].items()}
    tokenizer["model"]["vocab"] = vocab
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    args = [checkpoint, "--backend", "reference"]
    ids = ["--tokens", "0,3,1,6,5,2,15,4,3,1,6"]
    for command in (["trace"], ["lens"], ["influence"], ["influence", "--method", "attention"]):
        run = cli(command[0], *args, *ids, *command[1:])
        assert run.code == 0
        for text in (run.out, run.err):
            assert not set(text) & set("\x1b\x07\u202e\u200b")
        assert "\\x1b[2J" in run.out
        assert "[bold]" in run.out
        document = cli(command[0], *args, *ids, *command[1:], "--json").document
        validate(command[0], document)
        assert document["tokens"][4]["text"] == hostile


def test_a_hostile_path_cannot_reach_the_terminal(cli, tmp_path):
    error = cli("info", tmp_path / "x\x1b[2J\n.gguf").error
    assert "\\x1b[2J" in error
