"""From a GGUF file to a session."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from attrs import evolve

from llmtrace.trace import ModelInfo
from llmtrace_llamacpp import guard
from llmtrace_llamacpp.library import load
from llmtrace_llamacpp.native import NativeModel
from llmtrace_llamacpp.options import LlamaCppOptions
from llmtrace_llamacpp.session import LlamaCppSession
from llmtrace_llamacpp.tokenizer import LlamaCppTokenizer
from llmtrace_llamacpp.weights import open_gguf


def open_model(source: str, options: LlamaCppOptions) -> LlamaCppSession:
    """Load a file. Raises `ModelOpenError` and its kin, with the culprit and the fix."""
    path = Path(source).expanduser()
    file = open_gguf(path)
    guard.check(file.header)
    library = load(options.library)
    if options.guard:
        guard.admit(path, library)
    if options.context is not None:
        file = evolve(file, spec=evolve(file.spec, context=min(options.context, file.spec.context or options.context)))
    model = NativeModel(path, library=library, gpu_layers=options.gpu_layers)
    try:
        tokenizer = LlamaCppTokenizer(model) if model.has_tokenizer else None
        info = ModelInfo(
            source=source,
            backend="llamacpp",
            runtime="llama.cpp",
            versions={"llmtrace-llamacpp": version("llmtrace-llamacpp"), **library.versions},
            fingerprint=file.fingerprint,
            weights=f"{file.header.kinds}, packed",
            device="cpu" if not options.gpu_layers else "cpu and accelerator",
            settings={
                "flash_attn": options.flash_attn,
                "cache": options.cache,
                "threads": str(options.threads or os.cpu_count() or 1),
                "gpu_layers": str(options.gpu_layers),
            },
            notes=() if tokenizer else ("the file has no tokenizer: prompts are token ids",),
        )
        return LlamaCppSession(model, file, info, tokenizer, options)
    except BaseException:
        model.close()
        raise
