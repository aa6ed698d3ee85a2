"""What a size belongs to. **Axis**: a dimension of a signal or weight, by name (`head`, `d_model`); its size is its length."""

from __future__ import annotations

from typing import TypeAlias

Sizes: TypeAlias = dict[str, int]
"""Axis to length."""
