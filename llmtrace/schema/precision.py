"""How finely a capture is rounded. **Storage**: the type in which the runtime held a signal; **accumulation**: that of its sums;
**operands**: that to which a product's inputs are rounded before they are multiplied, where that is not how they are held.
"""

from __future__ import annotations

from attrs import field, frozen, validators

ROUNDOFF: dict[str, float] = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "q8_0": 2.0**-8,
    "q8_k": 2.0**-8,
    "int8_16": 2.0**-8,
    "int8_64": 2.0**-8,
    "int8_128": 2.0**-8,
    "int8_256": 2.0**-8,
    "uint8_tensor": 2.0**-8,
}
"""Unit round-off by type name: half the distance from 1 to the next number. Of `q8_0`, ggml's blocks of 32 in 8 bits, what fits its
error on Gaussian numbers, 3.8e-5 of their square (a step of 1/127 of the block's largest). The others of 8 bits have the same: what they
cost is felt (`blocks`), and this is the least."""

BYTES: dict[str, int] = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "uint8": 1}
"""Bytes an element, of every type that a signal may be handed over in."""

FUNCTIONS: dict[str, float] = {"": 0.0, "ggml_f16_table": 2.0**-11, "mlas_logistic": 2.0**-17}
"""Round-off by how a runtime computes a function: ggml looks GELU and SiLU up in half precision; ONNX Runtime's sigmoid and tanh are rational
functions that err by 1.4e-7 and 2.7e-7 absolutely, which shows where an activation's inputs are mostly below -4.
"""


@frozen
class Precision:
    """What rounding a signal has been through, as far as the backend knows."""

    storage: str = field(default="float32", validator=validators.in_({*BYTES, *ROUNDOFF}))
    """Type of the values as the runtime held them."""
    accumulation: str = field(default="float32", validator=validators.in_(ROUNDOFF))
    """Type in which products were summed."""
    operands: str = field(default="", validator=validators.in_({"", *ROUNDOFF}))
    """Type to which the inputs of its product were rounded beyond how they are captured (a float16 cache, 8-bit activations)."""
    functions: str = field(default="", validator=validators.in_(FUNCTIONS))
    """The table where a runtime approximates the activation; empty where it computes it."""

    @property
    def storage_roundoff(self) -> float:
        """Unit round-off of the storage type; integers are exact."""
        return ROUNDOFF.get(self.storage, 0.0)

    @property
    def accumulation_roundoff(self) -> float:
        """Unit round-off of the accumulation type."""
        return ROUNDOFF[self.accumulation]

    @property
    def operand_roundoff(self) -> float:
        """Unit round-off of the inputs of the product; 0 where they are used as captured."""
        return ROUNDOFF.get(self.operands, 0.0)

    @property
    def function_roundoff(self) -> float:
        """Round-off of the table that the activation is looked up in; 0 where it is computed."""
        return FUNCTIONS[self.functions]
