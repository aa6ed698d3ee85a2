"""A file is there whole or not at all: whatever goes wrong, the old one survives and nothing is left behind."""

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs
import numpy as np
import pytest

import llmtrace
from llmtrace.errors import TraceFileError
from llmtrace.store.atomic import replacing


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "kept.trace"
    path.write_bytes(b"the old one")
    return path


def unchanged(path):
    return path.read_bytes() == b"the old one" and [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_file_is_replaced_when_it_is_complete(old):
    with replacing(old) as file:
        file.write(b"new")
        assert old.read_bytes() == b"the old one"
    assert old.read_bytes() == b"new"
    assert [each.name for each in old.parent.iterdir()] == [old.name]


@pytest.mark.parametrize("error", [RuntimeError("in between"), KeyboardInterrupt(), MemoryError()])
def test_an_exception_in_between_changes_nothing(old, error):
    def write():
        with replacing(old) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert unchanged(old)


def test_a_disk_that_fills_up_in_the_middle_changes_nothing(trace, old, monkeypatch):
    written = []

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            written.append(len(data))
            if sum(written) > 20_000:
                raise OSError(28, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *what):
            self.file.close()

    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, mode="r", *a, **k: (
            Full(opened(self, mode, *a, **k)) if mode == "xb" else opened(self, mode, *a, **k)
        ),
    )
    with pytest.raises(TraceFileError, match=r"kept\.trace could not be written: No space left on device"):
        trace.save(old)
    assert len(written) > 2
    assert unchanged(old)


def test_a_real_limit_on_the_size_of_files_changes_nothing(old, saved):
    code = f"""
        import resource, llmtrace
        from llmtrace.errors import TraceFileError
        trace = llmtrace.load({str(saved)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))
        try:
            trace.save({str(old)!r})
        except TraceFileError as error:
            print("refused:", error)
    """
    size, limit = saved.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    assert size > 15_000
    saved_elsewhere = saved.rename(saved.parent.parent / f"{saved.parent.name}.trace")
    code = code.replace(str(saved), str(saved_elsewhere))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused:")
    assert "File too large" in done.stdout
    assert unchanged(old)
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == limit


def test_a_directory_that_does_not_exist_is_said_before_anything_is_written(trace, tmp_path):
    with pytest.raises(TraceFileError, match=r"there is no directory .*Make it"):
        trace.save(tmp_path / "none" / "a.trace")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_not_written_over(trace, tmp_path):
    (tmp_path / "dir").mkdir()
    with pytest.raises(TraceFileError, match="it is a directory"):
        trace.save(tmp_path / "dir")


def test_a_device_is_not_replaced(trace):
    with pytest.raises(TraceFileError, match="not a regular file"):
        trace.save("/dev/null")
    assert not Path("/dev/null").is_file()


def test_a_read_only_file_is_not_replaced(trace, old, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not (str(path) == str(old) and mode == os.W_OK))
    with pytest.raises(TraceFileError, match="it is read-only"):
        trace.save(old)
    assert unchanged(old)


def test_a_directory_that_may_not_be_written_is_said(trace, old, monkeypatch):
    opened = Path.open

    def refuse(self, mode="r", *a, **k):
        if mode == "xb":
            raise PermissionError(13, "Permission denied")
        return opened(self, mode, *a, **k)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TraceFileError, match="Permission denied"):
        trace.save(old)
    assert unchanged(old)


def test_a_link_is_followed_and_stays_a_link(trace, old, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(old)
    trace.save(link)
    assert link.is_symlink()
    assert llmtrace.load(old).ids == trace.ids


def test_rights_are_those_of_the_old_file_or_of_the_umask(trace, old, tmp_path):
    old.chmod(0o640)
    trace.save(old)
    assert old.stat().st_mode & 0o777 == 0o640
    before = os.umask(0o027)
    try:
        trace.save(tmp_path / "new.trace")
    finally:
        os.umask(before)
    assert (tmp_path / "new.trace").stat().st_mode & 0o777 == 0o640


def test_a_long_name_is_an_error_and_no_crash(trace, tmp_path):
    for name in ("x" * 300, "zero\0byte"):
        with pytest.raises(TraceFileError, match="cannot be written"):
            trace.save(tmp_path / name)
        with pytest.raises(TraceFileError):
            llmtrace.load(tmp_path / name)
    trace.save(tmp_path / ("y" * 250))
    assert llmtrace.load(tmp_path / ("y" * 250)).ids == trace.ids


def test_a_type_that_the_format_does_not_have_is_refused_before_anything_is_written(trace, old):
    signal = attrs.evolve(trace["embed"], array=np.zeros((4, 12), np.complex64))
    with pytest.raises(TraceFileError, match="embed is complex64, and a signal may be float64"):
        attrs.evolve(trace, signals={"embed": signal}).save(old)
    assert unchanged(old)


def test_a_number_that_json_does_not_have_is_refused(trace, old):
    spec = attrs.evolve(trace.spec, ln_final=attrs.evolve(trace.spec.ln_final, eps=float("nan")))
    with pytest.raises(TraceFileError, match="not JSON"):
        attrs.evolve(trace, spec=spec).save(old)
    assert unchanged(old)


def test_a_damaged_source_does_not_become_a_good_looking_copy(saved, old):
    whole = bytearray(saved.read_bytes())
    whole[-1] ^= 1
    saved.write_bytes(whole)
    loaded = llmtrace.load(saved)
    saved.unlink()
    with pytest.raises(TraceFileError, match="was altered"):
        loaded.save(old)
    assert unchanged(old)
