"""Law 10. Bad input is a typed error that names the culprit and the fix; no file can run code; nothing half-written replaces a good one."""

import ast
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import llmtrace
from llmtrace import errors
from llmtrace.data import embedded
from tests.laws.programs import name, sources, tree


@pytest.fixture(scope="module")
def model():
    with llmtrace.open("builtin:induction", backend="reference") as opened:
        yield opened


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda m: m.trace("a b zzz"), errors.PromptError, "zzz"),
        (lambda m: m.trace([]), errors.PromptError, "empty"),
        (lambda m: m.trace([1.5]), errors.PromptError, "1.5"),
        (lambda m: m.trace([99_999]), errors.PromptError, "99999"),
        (lambda m: m.trace([1] * 100_000), errors.PromptError, "context"),
        (lambda m: m.trace("a b", capture="blocks.0.attn.patern"), errors.UnknownSignalError, "blocks.0.attn.pattern"),
        (lambda m: m.trace("a b", capture="blocks.7.attn.pattern"), errors.UnknownSignalError, "blocks.7"),
        (lambda m: m.trace("a b", capture=llmtrace.select("**", heads=[99])), errors.OptionError, "99"),
        (lambda m: m.trace("a b", capture=llmtrace.select("**", tokens=[99])), errors.PromptError, "99"),
        (lambda m: m.trace("a b", max_bytes=5), errors.LimitError, "--max-bytes"),
        (lambda m: m.influence("a b", method="atli"), errors.UnknownMethodError, "alti"),
        (lambda m: m.influence("a b", position=9), errors.PromptError, "9"),
        (lambda m: m.influence("a b", target="a b"), errors.PromptError, "not one token"),
        (lambda m: m.predict("a b", position=9), errors.PromptError, "9"),
        (lambda m: m.lens("a b", position=-9), errors.PromptError, "-9"),
        (lambda m: m.trace("a b", replay={"nowhere": np.zeros(1)}), errors.UnknownSignalError, "nowhere"),
        (lambda m: m.trace("a b")["blocks.0.attn.nothing"], errors.UnknownSignalError, "nothing"),
        (lambda m: m.trace("a b").save("/no/such/directory/x"), errors.TraceFileError, "/no/such/directory"),
        (lambda m: llmtrace.open("builtin:inductoin"), errors.ModelOpenError, "induction"),
        (lambda m: llmtrace.open("/no/such/model"), errors.ModelOpenError, "/no/such/model"),
        (lambda m: llmtrace.open("builtin:induction", backend="refrence"), errors.BackendNotFoundError, "reference"),
        (
            lambda m: llmtrace.open("builtin:induction", options={"dtyp": "x"}, backend="reference"),
            errors.OptionError,
            "dtype",
        ),
        (lambda m: llmtrace.load("/no/such/trace"), errors.TraceFileError, "/no/such/trace"),
    ],
)
def test_bad_input_is_a_typed_error_that_names_the_culprit(model, ask, error, words):
    with pytest.raises(error, match=words) as caught:
        ask(model)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.fixture
def damaged(tmp_path):
    """A copy of the embedded model's directory."""
    folder = tmp_path / "model"
    shutil.copytree(embedded("induction"), folder)
    return folder


def test_a_truncated_checkpoint_is_named(damaged):
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(errors.ModelOpenError, match=r"model\.safetensors.*truncated"):
        llmtrace.open(damaged, backend="reference")


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_a_missing_tensor_is_named(damaged):
    change(damaged, lambda tensors: tensors.pop("model.layers.1.self_attn.v_proj.weight"))
    with pytest.raises(errors.ModelOpenError, match=r"model\.layers\.1\.self_attn\.v_proj|blocks\.1\.attn\.W_V"):
        llmtrace.open(damaged, backend="reference")


def test_a_tensor_of_a_wrong_shape_is_named(damaged):
    key = "model.layers.1.self_attn.v_proj.weight"
    change(damaged, lambda tensors: tensors.update({key: tensors[key][:-1].copy()}))
    with pytest.raises(errors.ModelOpenError, match=r"model\.layers\.1\.self_attn\.v_proj|blocks\.1\.attn\.W_V"):
        llmtrace.open(damaged, backend="reference")


def test_a_weight_that_is_nan_is_never_a_silent_number(damaged):
    key = "model.layers.1.self_attn.v_proj.weight"

    def spoil(tensors):
        tensors[key] = tensors[key].copy()
        tensors[key].flat[0] = np.nan

    change(damaged, spoil)
    try:
        with llmtrace.open(damaged, backend="reference") as model:
            verdicts = model.verify("a b c a b")
            bad = [verdict for verdict in verdicts if verdict.status == "violated"]
            assert bad[0].site == "blocks.1.attn.v"
            assert "NaN" in bad[0].reason
    except errors.ModelOpenError as error:
        assert "NaN" in str(error)  # noqa: PT017


def test_a_config_that_is_no_json_is_named(damaged):
    (damaged / "config.json").write_text("{")
    with pytest.raises(errors.ModelOpenError, match=r"config\.json"):
        llmtrace.open(damaged, backend="reference")


@pytest.mark.parametrize("path", sources("llmtrace", "backends"), ids=name)
def test_nothing_that_is_opened_can_run(path):
    """No unpickling, no evaluation, no code of a model's own repository."""
    banned = {"eval", "exec", "compile", "__import__"}
    for node in ast.walk(tree(path)):
        match node:
            case ast.Import(names=names):
                assert not {alias.name for alias in names} & {"pickle", "marshal", "shelve", "dill", "joblib"}, (
                    ast.unparse(node)
                )
            case ast.ImportFrom(module=str(module)):
                assert module not in ("pickle", "marshal", "shelve"), ast.unparse(node)
            case ast.Call(func=ast.Name(id=called)):
                assert called not in banned, ast.unparse(node)
            case ast.keyword(arg="trust_remote_code" | "allow_pickle", value=ast.Constant(value=value)):
                assert value is False, ast.unparse(node)
            case ast.AnnAssign(target=ast.Name(id="trust_remote_code"), value=default):
                assert default is not None, "a switch that is off unless it is asked for by name"
                assert ast.unparse(default) == "False", ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr="load", value=ast.Name(id="torch"))):
                assert any(keyword.arg == "weights_only" for keyword in node.keywords), ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr="load" | "unsafe_load", value=ast.Name(id="yaml"))):
                pytest.fail(ast.unparse(node))
            case _:
                pass


STARTS_ITSELF = (
    "llmtrace/testing/checking.py",
    "llmtrace/chat/process.py",
    "backends/llamacpp/llmtrace_llamacpp/guard.py",
)
"""They run another process of this Python: the kit, a stranger's chat template, and the opening of files that may end one."""


@pytest.mark.parametrize(
    "path",
    [path for path in sources("llmtrace", "backends") if "kit" not in path.parts and name(path) not in STARTS_ITSELF],
    ids=name,
)
def test_nothing_is_installed_or_fetched(path):
    for node in ast.walk(tree(path)):
        match node:
            case ast.Import(names=names):
                assert not {alias.name.partition(".")[0] for alias in names} & {
                    "requests",
                    "urllib",
                    "httpx",
                    "socket",
                    "pip",
                    "subprocess",
                }
            case ast.ImportFrom(module=str(module)):
                assert module.partition(".")[0] not in ("requests", "urllib", "httpx", "socket", "pip", "subprocess")
            case _:
                pass


@pytest.mark.parametrize("path", sources("llmtrace", "backends"), ids=name)
def test_files_are_written_by_the_one_function_that_replaces_them_whole(path):
    """Nothing but `store/atomic.py` opens a file for writing."""
    if name(path).endswith("store/atomic.py") or "/testing/" in name(path):
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in ("write_text", "write_bytes"), ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "open":
            modes = [
                a.value
                for a in [*node.args, *(k.value for k in node.keywords)]
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
            assert not [mode for mode in modes if mode in ("w", "wb", "a", "ab", "x", "xb", "w+", "r+", "r+b")], (
                ast.unparse(node)
            )
