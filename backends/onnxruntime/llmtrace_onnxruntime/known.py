"""Whether the installed ONNX Runtime knows what a model is written in: its format, its operator sets, its operators. It is asked itself,
with a graph of one node, and with its own list of operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnxruntime

from llmtrace.errors import ModelOpenError, UnsupportedModelError, shown, suggest

STANDARD = ""
"""The domain of ONNX's own operators; a file may also call it `ai.onnx`."""


def check_known(proto: onnx.ModelProto, path: Path, custom_ops: Sequence[Path]) -> None:
    """Raise `UnsupportedModelError` for a format, operator set or operator that ONNX Runtime does not know.

    With libraries of custom operators, operators are left to ONNX Runtime, which reads them when it opens the model.
    """
    _format(proto, path)
    schemas = getattr(onnxruntime.capi.onnxruntime_pybind11_state, "get_all_operator_schema", None)
    if custom_ops or schemas is None:
        return
    known = {(schema.domain, schema.name) for schema in schemas()}
    own = {(function.domain, function.name) for function in proto.functions}
    bodies = (node for function in proto.functions for node in function.node)
    for node in _nodes([*proto.graph.node, *bodies]):
        domain = STANDARD if node.domain == "ai.onnx" else node.domain
        if (domain, node.op_type) not in known and (node.domain, node.op_type) not in own:
            raise _unknown(node, domain, path, [name for where, name in known if where == domain])


def _format(proto: onnx.ModelProto, path: Path) -> None:
    """Raise for an IR version or operator set beyond ONNX Runtime's."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "asking", [value("x", 1, [1])], [value("y", 1, [1])]
    )
    asking = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(asking.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a dozen kinds, all of them direct children of Exception
        sets = (
            ", ".join(f"{shown(each.domain or 'ai.onnx')} {each.version}" for each in proto.opset_import)
            or "no operator set"
        )
        raise UnsupportedModelError(
            f"{path} is of IR version {proto.ir_version} with {sets}, which ONNX Runtime {onnxruntime.__version__} refuses: "
            f"{said(error)}. Upgrade onnxruntime, or export the model with an older operator set."
        ) from error


def _unknown(node: onnx.NodeProto, domain: str, path: Path, near: list[str]) -> ModelOpenError:
    where = f"the node {shown(node.name)}" if node.name else "a node"
    if near:
        return UnsupportedModelError(
            f"{path}: {where} is {shown(node.op_type)} of {shown(domain or 'ai.onnx')}, which ONNX Runtime {onnxruntime.__version__} does "
            f"not have: upgrade onnxruntime, or export the model again.{suggest(node.op_type, near)}"
        )
    return UnsupportedModelError(
        f"{path}: {where} is {shown(node.op_type)} of {shown(domain)}, which are custom operators: name the library that has them with "
        "the option custom_ops, if you trust it (it is code), or export the model without them."
    )


def _nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of the graphs inside."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                if graph.node:
                    yield from _nodes(list(graph.node))


def said(error: BaseException) -> str:
    """What ONNX Runtime says, without its number, its C++ signature and what is beyond a few lines."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    if text.startswith("/onnxruntime_src") and ") " in text:
        text = text.rsplit(") ", 1)[-1] if len(text.rsplit(") ", 1)[-1]) > 20 else text
    return (text if len(text) <= 400 else text[:399] + "…").rstrip(". ")
