"""The settings that the backend takes. **Prepacking**: ONNX Runtime copies weights into the layout that its kernels like best."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from attrs.validators import ge, in_, le, optional

LEVELS: Mapping[str, str] = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
"""Ours to ONNX Runtime's own names of `GraphOptimizationLevel`."""
MOST_THREADS = 512
MOST_HELD = 1 << 20


@frozen
class OnnxRuntimeOptions:
    """How a graph is loaded and run."""

    optimization: str = field(default="all", validator=in_(tuple(LEVELS)))
    """What ONNX Runtime may rewrite in the graph: `all`, its default, `extended`, `basic`, or nothing (`off`)."""
    prepacking: bool = True
    """Whether weights are copied into another layout, once for each session; without it, all sessions share the file's own pages."""
    saturating: bool = True
    """Whether sums of int8 products may be cut off at 16 bits, as they are on x86 processors without VNNI; without it, they are whole on all."""
    threads: int | None = field(default=None, validator=optional([ge(1), le(MOST_THREADS)]))
    """Threads that compute; None: as ONNX Runtime decides."""
    held: int = field(default=1024, validator=[ge(1), le(MOST_HELD)])
    """MiB of signals that one call of ONNX Runtime may hold: it hands all of them out together, so for more the graph is run again."""
    providers: str = "CPUExecutionProvider"
    """Execution providers in their order, joined by commas; those that are not installed are refused."""
    deterministic: bool = False
    """Ask ONNX Runtime for kernels that give the same bits in every run."""
    file: str | None = None
    """Which `.onnx` file of a directory, relative to it; None: the one that its name, or `genai_config.json`, tells."""
    tokenizer: str | None = None
    """A `tokenizer.json`, or the directory that holds it; None: the one beside the graph."""
    custom_ops: str | None = None
    """Libraries of operators to load, joined as in PATH: code that runs in this process, so name only what you trust."""


PRESETS: Mapping[str, OnnxRuntimeOptions] = {
    "exact": OnnxRuntimeOptions(optimization="off", prepacking=False, saturating=False, deterministic=True),
    "shipped": OnnxRuntimeOptions(),
}
