"""Law 2. Import has no side effects; `import llmtrace` is quick enough for shell completion.

Cheap is counted in modules, not timed: a count is the same on every machine.
"""

import ast

import pytest

from tests.laws.programs import name, run, sources, tree

HEAVY = ("numpy", "pandas", "click", "rich", "tokenizers", "cattrs", "safetensors", "pluggy", "ml_dtypes", "attr")


def test_import_llmtrace_loads_a_handful_of_modules_and_nothing_heavy():
    new, heavy = run(
        f"""
    import sys, json
    before = set(sys.modules)
    import llmtrace
    after = set(sys.modules) - before
    print(json.dumps([sorted(after), [name for name in {HEAVY!r} if name in after]]))
    """
    )
    assert heavy == []
    assert len(new) <= 20, new


def test_the_command_line_loads_no_numbers_to_show_its_help():
    heavy = run(
        """
    import sys, json, io, contextlib
    from click.testing import CliRunner
    from llmtrace.cli import main
    from llmtrace.cli.app import app
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0, result.output
    print(json.dumps([name for name in ("numpy", "pandas", "tokenizers", "cattrs", "ml_dtypes") if name in sys.modules]))
    """
    )
    assert heavy == []


def test_import_changes_nothing_outside_the_package(tmp_path):
    before, after, files = run(
        f"""
    import sys, json, os, warnings, threading, signal, logging, locale
    os.chdir({str(tmp_path)!r})
    import numpy as np
    def state():
        return [dict(os.environ), len(warnings.filters), threading.active_count(), repr(signal.getsignal(signal.SIGINT)),
                [repr(h) for h in logging.getLogger().handlers], locale.setlocale(locale.LC_ALL), os.getcwd(), np.geterr(),
                sys.getrecursionlimit(), repr(sys.excepthook), repr(sys.displayhook), len(sys.meta_path), len(sys.path_hooks)]
    before = state()
    import llmtrace
    for name in llmtrace.__all__:
        getattr(llmtrace, name)
    print(json.dumps([before, state(), os.listdir()]))
    """
    )
    assert before == after
    assert files == []


def test_import_prints_nothing():
    assert run("import llmtrace; [getattr(llmtrace, name) for name in llmtrace.__all__]; print('[]')") == []


@pytest.mark.parametrize("path", sources("llmtrace", "backends"), ids=name)
def test_no_module_calls_what_changes_the_world_when_it_is_imported(path):
    """Top-level calls of functions that write, patch or configure."""
    banned = ("open", "print", "os.environ", "os.makedirs", "warnings.filterwarnings", "warnings.simplefilter", "logging.basicConfig",
              "np.seterr", "torch.set_", "sys.path", "subprocess", "threading.Thread")  # fmt: skip
    for statement in tree(path).body:
        if isinstance(statement, (ast.Expr, ast.Assign)) and not isinstance(
            getattr(statement, "value", None), ast.Constant
        ):
            text = ast.unparse(statement)
            assert not text.startswith(banned), text
            assert not any(f" = {word}(" in text for word in banned), text


def test_every_public_name_is_there_and_in_the_directory():
    import llmtrace

    for public in llmtrace.__all__:
        assert getattr(llmtrace, public) is not None
        assert public in dir(llmtrace)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = llmtrace.nonsense
