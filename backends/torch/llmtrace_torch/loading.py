"""A model by transformers' own loader, complete and on its device, or an error with the culprit and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from llmtrace.errors import ModelOpenError, OptionError, shown
from llmtrace_torch import gguf_model
from llmtrace_torch.options import TorchOptions
from llmtrace_torch.quiet import quiet


def load(source: str, path: Path, options: TorchOptions, gguf: Any = None) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The model in evaluation mode with nothing left at random, and what to say of it. `gguf` is the config that transformers makes of a GGUF file; None for a
    directory.

    Raises `ModelOpenError` and `OptionError`.
    """
    dtype = "float32" if gguf and options.dtype == "auto" else options.dtype
    where: dict[str, Any] = {"gguf_file": path.name, "config": gguf} if gguf else {"use_safetensors": True}
    attention = None if options.attention == "auto" else options.attention
    trust = options.trust_remote_code and not gguf
    try:
        with quiet(), gguf_model.alone(path) if gguf else nullcontext(path) as directory:
            both: Any = transformers.AutoModelForCausalLM.from_pretrained(
                directory, local_files_only=True, dtype=dtype, attn_implementation=attention, output_loading_info=True,
                ignore_mismatched_sizes=True, trust_remote_code=trust, **where,
            )  # fmt: skip
            loaded: PreTrainedModel = both[0]
            report: Mapping[str, Any] = both[1]
    except Exception as error:  # transformers raises whatever it meets
        if options.attention == "sdpa" and isinstance(error, ValueError) and "scaled_dot_product" in str(error):
            raise OptionError(
                f"transformers has no sdpa attention for the model {source}: leave attention=auto, or ask for eager."
            ) from error
        raise ModelOpenError(f"transformers cannot load {source}: {type(error).__name__}: {error}") from error
    _complete(source, report, bool(gguf))
    if loaded.dtype == torch.float64 and loaded._can_set_experts_implementation():
        loaded.set_experts_implementation("eager")  # the grouped product has no float64
    loaded.eval()
    unused = sorted(map(str, report.get("unexpected_keys") or ()))
    more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
    return loaded, (f"transformers makes no use of {shown(unused[0])}{more}",) if unused else ()


def _complete(source: str, report: Mapping[str, Any], gguf: bool) -> None:
    """Raise `ModelOpenError` for a tensor that transformers did not find or could not use: it would be filled with random numbers."""
    fix = (
        "Its GGUF reader may not know this variant: the backend llamacpp reads the file itself"
        if gguf
        else "Fetch it again"
    )
    for what, why in (
        ("missing_keys", "did not find"),
        ("mismatched_keys", "expects another shape of"),
        ("error_msgs", "cannot use"),
    ):
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in report.get(what) or ())
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModelOpenError(
                f"transformers {why} {names[0]}{more} in {source}, and would use random numbers. {fix}."
            )


def device_of(wanted: str) -> str:
    """The device that an option names; `auto` is the first that is there. Raises `OptionError` for one that is not."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name in there if there[name])
    if not there[wanted]:
        raise OptionError(
            f"The option device={wanted!r} names a device that PyTorch does not find here; cpu always works."
        )
    return wanted


def settings_of(model: PreTrainedModel, *, experts: bool) -> dict[str, str]:
    """What decides how a model computes, by name; the kernel of `experts` where it has some."""
    kernel = {"experts": str(model.get_experts_implementation()[""])} if experts else {}
    return {
        "dtype": str(model.dtype).removeprefix("torch."), "attention": str(model.config._attn_implementation), **kernel,
        "threads": str(torch.get_num_threads()),
    }  # fmt: skip


LARGE = 1e30
"""Weights that are larger may overflow by themselves."""


def bounded(model: PreTrainedModel) -> bool:
    """Whether every weight is finite, and none so large that it may overflow by itself."""
    ends = (torch.aminmax(weight.detach()) for weight in model.parameters() if weight.numel())
    return all(float(least) > -LARGE and float(most) < LARGE for least, most in ends)  # neither for NaN


def non_finite(model: PreTrainedModel) -> tuple[str, ...]:
    """A note where a parameter is not finite."""
    bad = next((name for name, weight in model.named_parameters() if not _finite(weight.detach())), None)
    return () if bad is None else (f"{bad} holds NaN or infinite values",)


def _finite(weight: torch.Tensor) -> bool:
    """Whether all elements are. A sum is ten times as quick as a look at each, and finite only if they all are; a sum may overflow."""
    return bool(torch.isfinite(weight.sum())) or bool(torch.isfinite(weight).all())
