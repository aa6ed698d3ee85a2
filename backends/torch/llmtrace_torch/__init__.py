"""LLMTrace on PyTorch: traces transformers checkpoints and, dequantised, GGUF files. `llmtrace_torch.plugin` is what LLMTrace loads."""
