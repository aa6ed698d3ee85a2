"""How a context of llama.cpp computes: the settings that change numbers, and those that change their cost."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen, validators

CACHE_TYPES = {"f32": 0, "f16": 1}
"""How keys and values may be kept, and ggml's number for it."""
FLASH = {"off": 0, "on": 1, "auto": -1}
MOST_THREADS = 512
"""More end the process (GGML_MAX_N_THREADS)."""
MOST_CONTEXT = 1 << 24
"""Tokens; far beyond any model, and far from where the sizes of a cache overflow."""


def _number(most: int) -> Any:
    """A validator of whole numbers from 1 on."""
    return validators.and_(validators.instance_of(int), validators.ge(1), validators.le(most))


@frozen
class ContextSettings:
    """How a context computes. A value that the library would not survive raises `ValueError` or `TypeError`."""

    n_ctx: int = field(default=512, validator=_number(MOST_CONTEXT))
    """The longest prompt; the library's cache is longer, by up to 255."""
    n_batch: int | None = field(default=None, validator=validators.optional(_number(MOST_CONTEXT)))
    """Tokens in one call of the library; None: `n_ctx`."""
    n_ubatch: int | None = field(default=None, validator=validators.optional(_number(MOST_CONTEXT)))
    """Tokens in one run of the graph; None: `n_batch`."""
    threads: int = field(default=1, validator=_number(MOST_THREADS))
    flash_attn: str = field(default="off", validator=validators.in_(tuple(FLASH)))
    """The kernel that never makes a pattern; `auto` is the library's default."""
    type_k: str = field(default="f32", validator=validators.in_(tuple(CACHE_TYPES)))
    """How keys are kept; the library's default is f16."""
    type_v: str = field(default="f32", validator=validators.in_(tuple(CACHE_TYPES)))
    """How values are kept; the library's default is f16."""
    swa_full: bool = True
    """Keep all keys of layers with a sliding window, not those within it only."""
    offload: bool = False
    """Compute attention, and products of long prompts, on an accelerator if there is one."""
    watched: bool = True
    """Whether a watcher can be given to `decode`. Without, the library calls back for no node at all."""
