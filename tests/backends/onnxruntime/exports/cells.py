"""Every exporter and rewriter by name, and the cell that two names make."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.backends.onnxruntime.exports import dynamo, genai, optimum, rewriters, smollm2, torchscript
from tests.backends.onnxruntime.exports.architectures import ARCHITECTURES, checkpoint, settle
from tests.backends.onnxruntime.exports.environment import check_installed
from tests.backends.onnxruntime.exports.exporter import Exporter, ExportError, NotInstalledError, last_line

EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter for module in (torchscript, dynamo, genai, optimum) for exporter in module.EXPORTERS
}
REWRITERS: dict[str, Exporter] = {rewriter.name: rewriter for rewriter in rewriters.REWRITERS}


def export(exporter: str, architecture: str, directory: Path) -> Path:
    """The path of a cell's `model.onnx`, made if it is not there: `directory/exporter/architecture/model.onnx`.

    Raises `ExportError` where the exporter refuses the model, `NotInstalledError` where what it needs is not here, `KeyError` for names that
    there are not.
    """
    base, plus, rewriter = exporter.partition("+")
    how = REWRITERS[rewriter] if plus else EXPORTERS[base]
    if architecture not in (*ARCHITECTURES, smollm2.NAME):
        raise KeyError(architecture)
    place = directory / exporter / architecture
    if not place.exists():
        check_installed(how.needs)
        source = export(base, architecture, directory).parent if plus else checkpoint(architecture, directory)
        place.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=place.parent))
        try:
            _make(how, source, made)
        except BaseException:
            shutil.rmtree(made)
            raise
        settle(made, place)
    return place / "model.onnx"


def _make(how: Exporter, source: Path, out: Path) -> None:
    try:
        how.make(source, out)
    except (ExportError, NotInstalledError):
        raise
    except Exception as error:  # exporters are strangers, and may raise anything
        raise ExportError(f"{type(error).__name__}: {last_line(str(error))}") from error
    if not (out / "model.onnx").exists():
        raise ExportError("no model.onnx was written")
