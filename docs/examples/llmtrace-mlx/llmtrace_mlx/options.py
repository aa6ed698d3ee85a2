"""The settings that the backend takes."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import in_


@frozen
class MlxOptions:
    """How a model is loaded and run."""

    device: str = field(default="auto", validator=in_(("auto", "cpu")))
    """`auto` is MLX's own choice: the GPU where there is one."""
    dtype: str = field(default="auto", validator=in_(("auto", "float32")))
    """Type of weights and activations; `auto` is the one that is stored."""
