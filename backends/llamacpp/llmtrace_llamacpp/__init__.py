"""LLMTrace backend for llama.cpp: GGUF files, as the library itself runs them."""
