"""One graph in ONNX Runtime. **Shared**: weights that all sessions read where they are, in the pages of the file.

ONNX Runtime keeps a copy of the weights for every session, unless it is given them as values of ours.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime import OrtValue

from llmtrace.errors import BackendError, ModelOpenError, OptionError, UnsupportedModelError, shown
from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.arena import share
from llmtrace_onnxruntime.external import BITS
from llmtrace_onnxruntime.known import said
from llmtrace_onnxruntime.options import LEVELS, OnnxRuntimeOptions
from llmtrace_onnxruntime.proto import Loaded
from llmtrace_onnxruntime.saturating import SILENT, is_unsigned, read_unsigned, unsigned
from llmtrace_onnxruntime.tensors import dtype_of

UNSIGNED = {1: "|u1", 2: "<u2", 4: "<u4", 8: "<u8"}


class Shared:
    """A model's weights as values of ONNX Runtime; made when a session first needs them."""

    def __init__(self, loaded: Loaded) -> None:
        self._tensors = loaded.tensors
        self._external = {
            tensor.name
            for tensor in loaded.graph.initializer
            if tensor.data_location == onnx.TensorProto.EXTERNAL and tensor.data_type not in BITS
        }
        self._values: dict[str, tuple[OrtValue, Array]] = {}
        self.can_saturate: dict[str, bool] = {}
        """What was found of matrices of int8 (`saturating`), so that each is looked through once."""

    def give(self, options: onnxruntime.SessionOptions, graph: onnx.GraphProto) -> list[Array]:
        """Let a session read the weights of its graph here. They have to outlive the session."""
        kept = []
        for tensor in graph.initializer:
            theirs = tensor.name in self._external or is_unsigned(tensor.name, self._tensors)
            if theirs and tensor.data_location == onnx.TensorProto.EXTERNAL:
                value, array = self._value(tensor.name, tensor.data_type)
                options.add_initializer(tensor.name, value)
                kept.append(array)
        return kept

    def _value(self, name: str, kind: int) -> tuple[OrtValue, Array]:
        if name not in self._values:
            made = is_unsigned(name, self._tensors)
            array = unsigned(name, self._tensors) if made else self._tensors[name]
            array = np.require(array, requirements=["C", "ALIGNED"])  # a weight may begin at any byte of the file
            self._values[name] = (OrtValue.ortvalue_from_numpy_with_onnx_type(array, kind), array)
        return self._values[name]


class Session:
    """One graph, ready to run."""

    def __init__(
        self, proto: onnx.ModelProto, loaded: Loaded, options: OnnxRuntimeOptions, shared: Shared, *, what: str
    ) -> None:
        """`proto` is changed; `what` is called so in messages. Raises `ModelOpenError`, or `UnsupportedModelError` for an operator without a kernel."""
        self._what = what
        weights = {tensor.name for tensor in proto.graph.initializer}
        self._kinds = {
            value.name: value.type.tensor_type.elem_type for value in proto.graph.input if value.name not in weights
        }
        settings = session_options(options, loaded)
        try:
            if not options.saturating:
                read_unsigned(proto.graph, loaded.tensors, providers(options), shared.can_saturate)
            self._kept = shared.give(settings, proto.graph)
            self._inner: Any = onnxruntime.InferenceSession(
                proto.SerializeToString(), settings, providers=providers(options)
            )
            self._inner.disable_fallback()
        except Exception as error:  # the runtime raises a dozen kinds, all of them direct children of Exception
            raise _refused(error, what) from error

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """The values of some outputs. They lie in memory of ONNX Runtime, which they keep; nothing is copied.

        Raises `BackendError` with what ONNX Runtime says.
        """
        if wrong := [*(feeds.keys() - self._kinds.keys()), *(self._kinds.keys() - feeds.keys())]:
            state = "has no input" if wrong[0] in feeds else "is not fed its input"
            raise BackendError(f"{self._what} {state} {shown(wrong[0])}: report it to the authors of this backend.")
        arrays = {name: np.require(array, requirements=["C", "ALIGNED"]) for name, array in feeds.items()}
        try:
            values = {
                name: OrtValue.ortvalue_from_numpy_with_onnx_type(array, self._kinds[name])
                for name, array in arrays.items()
            }
            quiet = onnxruntime.RunOptions()
            quiet.log_severity_level = SILENT
            made = self._inner.run_with_ort_values(list(outputs), values, quiet)
            return {name: _array(value) for name, value in zip(outputs, made, strict=True)}
        except Exception as error:  # as above
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in list(arrays.items())[:4])
            raise BackendError(
                f"ONNX Runtime stopped while it ran {self._what} on {shapes}: {said(error)}. If this prompt is longer than the model "
                "takes, shorten it; else export the model again, or report it."
            ) from error


def session_options(options: OnnxRuntimeOptions, loaded: Loaded) -> onnxruntime.SessionOptions:
    """ONNX Runtime's settings for ours."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = SILENT
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[options.optimization])
    settings.intra_op_num_threads = options.threads or 0
    # each session has threads of its own, and many are kept: those that wait must not turn on the spot
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if share():
        settings.add_session_config_entry("session.use_env_allocators", "1")
    settings.use_deterministic_compute = options.deterministic
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(loaded.base))
    # for products that the optimiser makes whole numbers of; `read_unsigned` sees to those that are
    if not options.saturating:
        settings.add_session_config_entry("session.x64quantprecision", "1")
    if not options.prepacking:
        settings.add_session_config_entry("session.disable_prepacking", "1")
    for library in loaded.custom_ops:
        try:
            settings.register_custom_ops_library(str(library))
        except Exception as error:  # as above, and whatever the loader of libraries has
            raise OptionError(
                f"The option custom_ops names {library}, which cannot be loaded: {said(error)}."
            ) from error
    return settings


def providers(options: OnnxRuntimeOptions) -> list[str]:
    """The execution providers that are asked for. Raises `OptionError` for one that is not installed."""
    named = [each.strip() for each in options.providers.split(",") if each.strip()]
    there = onnxruntime.get_available_providers()
    for each in named or [""]:
        if each not in there:
            raise OptionError(
                f"The option providers names {shown(each)}, which this build of onnxruntime does not have; it has {', '.join(there)}."
            )
    return named


def settings_of(options: OnnxRuntimeOptions) -> dict[str, str]:
    """What changes numbers, as text."""
    return {
        "optimization": options.optimization,
        "prepacking": str(options.prepacking).lower(),
        "saturating": str(options.saturating).lower(),
        "threads": str(options.threads or f"as ONNX Runtime decides ({os.cpu_count()} processors)"),
        "providers": options.providers,
        "deterministic": str(options.deterministic).lower(),
        "custom_ops": " ".join(Path(each).name for each in (options.custom_ops or "").split(os.pathsep) if each)
        or "none",
    }


class _Held:
    """Memory of ONNX Runtime, as NumPy asks for memory."""

    def __init__(self, value: OrtValue, size: int) -> None:
        self.value = value
        self.__array_interface__ = {
            "version": 3, "shape": tuple(value.shape()), "typestr": UNSIGNED[size], "data": (value.data_ptr(), False),
        }  # fmt: skip


def _array(value: OrtValue) -> Array:
    """The array in a value's own memory, also of types that NumPy has from `ml_dtypes` only."""
    kind = value.element_type()
    dtype = dtype_of(kind)
    if kind in BITS:
        raise TypeError(f"a value of {dtype} cannot be handed over")
    if dtype.isbuiltin == 1:
        return np.asarray(value.numpy())
    if 0 in value.shape():
        return np.empty(value.shape(), dtype)
    return np.asarray(_Held(value, dtype.itemsize)).view(dtype)


def _refused(error: Exception, what: str) -> Exception:
    if isinstance(error, OptionError):
        return error
    text = f"ONNX Runtime {onnxruntime.__version__} refuses {what}: {said(error)}."
    if type(error).__name__ == "NotImplemented":
        return UnsupportedModelError(
            f"{text} It has no kernel for this: name another of the option providers, or export another type."
        )
    return ModelOpenError(f"{text} Export the model again, or fetch it again.")
