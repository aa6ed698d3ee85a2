"""The settings that the backend takes."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, in_, le, optional

from llmtrace_llamacpp.settings import CACHE_TYPES, FLASH, MOST_CONTEXT, MOST_THREADS


@frozen
class LlamaCppOptions:
    """How a file is loaded and run."""

    flash_attn: str = field(default="auto", validator=in_(tuple(FLASH)))
    """`on`: the fused kernel, which rounds keys and values to float16 and makes no pattern; `off`; `auto`: as llama.cpp decides."""
    cache: str = field(default="f16", validator=in_(tuple(CACHE_TYPES)))
    """Type in which keys and values are kept, and so rounded: `f16`, as llama.cpp has it, or `f32`."""
    threads: int | None = field(default=None, validator=optional([ge(1), le(MOST_THREADS)]))
    """Threads that compute; None: as many as there are processors."""
    context: int | None = field(default=None, validator=optional([ge(1), le(MOST_CONTEXT)]))
    """Tokens that there is room for, as llama.cpp's `-c`: the longest prompt; None: as many as each prompt has, up to the model's own."""
    batch: int = field(default=2048, validator=[ge(1), le(MOST_CONTEXT)])
    """Tokens that llama.cpp is given at once, as its `-b`."""
    micro_batch: int = field(default=512, validator=[ge(1), le(MOST_CONTEXT)])
    """Tokens that its graph computes at once, as its `-ub`: of a longer prompt, what is recorded is held until the last ones."""
    gpu_layers: int = field(default=0, validator=ge(-1))
    """Blocks that an accelerator computes, where the library has one; -1: all."""
    library: str | None = None
    """A libllama to use instead of the installed one; several files joined as in PATH."""
    guard: bool = True
    """Open a file in a process of its own first: some damaged files end the process that opens them."""
