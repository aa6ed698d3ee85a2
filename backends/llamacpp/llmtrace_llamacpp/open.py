"""From a GGUF file to a session."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from attrs import evolve

from llmtrace.trace import ModelInfo
from llmtrace_llamacpp import guard
from llmtrace_llamacpp.embedded import file_of
from llmtrace_llamacpp.library import load
from llmtrace_llamacpp.native import NativeModel
from llmtrace_llamacpp.options import LlamaCppOptions
from llmtrace_llamacpp.session import LlamaCppSession
from llmtrace_llamacpp.stretch import as_run
from llmtrace_llamacpp.tokenizer import LlamaCppTokenizer
from llmtrace_llamacpp.weights import open_gguf


def open_model(source: str, options: LlamaCppOptions) -> LlamaCppSession:
    """Load a file. Raises `ModelOpenError` and its kin, with the culprit and the fix."""
    path = file_of(source) or Path(source).expanduser()
    file = open_gguf(path)
    guard.check(file.header)
    library = load(options.library)
    if options.guard:
        guard.admit(path, library)
    if options.context and file.spec.context:
        options = evolve(options, context=min(options.context, file.spec.context))
    spec = as_run(file.spec, options.context)
    file = evolve(file, spec=evolve(spec, context=options.context or spec.context))
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
                "batch": str(options.batch),
                "micro_batch": str(options.micro_batch),
                "context": str(options.context or "as long as the prompt"),
                "gpu_layers": str(options.gpu_layers),
            },
            notes=() if tokenizer else ("the file has no tokenizer: prompts are token ids",),
        )
        return LlamaCppSession(model, file, info, tokenizer, options)
    except BaseException:
        model.close()
        raise
