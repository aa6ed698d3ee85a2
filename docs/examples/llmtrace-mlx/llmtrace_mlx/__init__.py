"""LLMTrace backend for MLX: the decoders of mlx-lm."""
