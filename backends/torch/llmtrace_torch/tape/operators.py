"""Which of ONNX's operators does what one of ATen's does: the words in which graphs are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def _table() -> Iterator[tuple[str, str]]:
    for onnx, names in {
        "Reshape": "view _unsafe_view reshape _reshape_alias as_strided",
        "Transpose": "t transpose permute",
        "Slice": "slice select narrow",
        "Split": "split split_with_sizes chunk unbind",
        "Concat": "cat stack",
        "Identity": "clone alias detach lift_fresh",
        "Cast": "_to_copy copy to convert_element_type",
        "Expand": "expand",
        "Squeeze": "squeeze",
        "Unsqueeze": "unsqueeze",
        "Tile": "repeat repeat_interleave",
        "Gather": "index embedding index_select",
        "GatherElements": "gather",
        "ScatterElements": "scatter",
        "ScatterND": "slice_scatter index_put",
        "Where": "where masked_fill",
        "MatMul": "mm bmm",
        "Gemm": "addmm",
        "Add": "add",
        "Sub": "sub rsub",
        "Mul": "mul",
        "Div": "div",
        "Pow": "pow",
        "Clip": "clamp hardtanh",
        "Max": "clamp_min maximum",
        "Min": "clamp_max minimum",
        "ReduceMean": "mean var var_mean",
        "ReduceSum": "sum",
        "ReduceMax": "amax max",
        "ReduceL2": "linalg_vector_norm norm",
        "Softmax": "_softmax _safe_softmax",
        "LayerNormalization": "native_layer_norm",
        "RMSNormalization": "_fused_rms_norm",
        "TopK": "topk",
        "Tanh": "tanh",
        "Sigmoid": "sigmoid",
        "Dropout": "native_dropout",
    }.items():
        yield from ((name, onnx) for name in names.split())


ONNX: Mapping[str, str] = dict(_table())
"""ATen's name, without a mark that it works in place, to ONNX's. Operators that stand in no other place than activations keep their own."""
ORDER: Mapping[str, tuple[int, ...]] = {
    "addmm": (1, 2, 0),
    "rsub": (1, 0),
    "embedding": (0, 1),
    "copy": (1,),
    "zero": (),
    "fill": (),
}
"""Where what an operator reads stands, in the order of ONNX's, of those that have another."""
NUMBERS = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Clip", "Max", "Min", "Where"})
"""Operators of ONNX that read single numbers as values, which are arguments in ATen."""
