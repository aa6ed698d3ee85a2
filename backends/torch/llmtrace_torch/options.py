"""The settings that the PyTorch backend takes, and what the two presets choose."""

from __future__ import annotations

from attrs import field, frozen, validators

from llmtrace.protocol import Preset


@frozen
class TorchOptions:
    """How a model is loaded and run. A value that is not among the named ones raises `ValueError`."""

    dtype: str = field(default="auto", validator=validators.in_(("auto", "float32", "float64", "bfloat16", "float16")))
    """Type of weights and activations; `auto` is the type stored in the checkpoint, float32 for a GGUF file."""
    device: str = field(default="cpu", validator=validators.in_(("auto", "cpu", "cuda", "mps")))
    """Where the model runs; `auto` takes an accelerator if there is one."""
    attention: str = field(default="auto", validator=validators.in_(("auto", "eager", "sdpa")))
    """The attention kernel; `auto` is transformers' own choice, `eager` hands out the pattern."""
    threads: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    """PyTorch's threads, for the whole process; None leaves them as they are."""
    trust_remote_code: bool = False
    """Let a checkpoint run the Python code that it brings. Only for sources that you trust."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""


PRESETS: dict[Preset, TorchOptions] = {
    "exact": TorchOptions(dtype="float32", attention="eager"),
    "shipped": TorchOptions(),
}
"""`exact`: float32 and the kernel that hands out its pattern; `shipped`: the runtime's own defaults."""
