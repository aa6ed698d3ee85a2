"""Attention of written graphs as ONNX Runtime's optimiser spells it: in one operator with its matrix, or with its biases."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OWN = {"domain": "com.microsoft"}


def into_attention(graph, mask="tokens", past=False, bias=True):
    """Each MultiHeadAttention, with the matrices before it, as one `Attention`, which masks what comes later itself.

    `mask` is what it is told of padding: `tokens`, `lengths`, `pairs`, `added`, or nothing.
    """
    makers = {name: node for node in graph.node for name in node.output}
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    told = _mask(graph, mask)
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "MultiHeadAttention":
            continue
        adds = [makers[name] for name in node.input[:3]]
        products = [makers[each.input[0]] for each in adds]
        matrix = np.concatenate([held[each.input[1]] for each in products], 1)
        vector = np.concatenate([held[each.input[1]] for each in adds])
        graph.initializer.extend([
            numpy_helper.from_array(matrix, f"matrix {place}"), numpy_helper.from_array(vector, f"vector {place}"),
        ])  # fmt: skip
        heads = next(each.i for each in node.attribute if each.name == "num_heads")
        reads = [products[0].input[0], f"matrix {place}", f"vector {place}" if bias else "", told]
        makes, width = [node.output[0]], matrix.shape[1] // 3 // heads
        if mask == "added":
            reads = [*reads[:3], "", "", node.input[5]]
        if past:
            reads, makes = [*reads[:4], f"past {place}", *reads[5:]], [*makes, f"present {place}"]
            graph.input.append(_cache(f"past {place}", heads, "before", width))
            graph.output.append(_cache(f"present {place}", heads, "all", width))
        made = helper.make_node("Attention", reads, makes, unidirectional=1, **OWN)
        made.attribute.extend(node.attribute)
        graph.node.insert(place + 1, made)
        for each in (node, *adds, *products):
            graph.node.remove(each)


def into_biased(graph):
    """The biases of q, k and v into each MultiHeadAttention, which is told which tokens count and masks what comes later itself."""
    makers = {name: node for node in graph.node for name in node.output}
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    told = _mask(graph, "tokens")
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "MultiHeadAttention":
            continue
        adds = [makers[name] for name in node.input[:3]]
        vector = np.concatenate([held[each.input[1]] for each in adds])
        graph.initializer.append(numpy_helper.from_array(vector, f"vector {place}"))
        node.input[:] = [*(each.input[0] for each in adds), f"vector {place}", told]
        node.attribute.append(helper.make_attribute("unidirectional", 1))
        for each in adds:
            graph.node.remove(each)


def _cache(name, heads, length, width):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, "batch", heads, length, width])


def _mask(graph, kind):
    if kind in ("", "added"):
        return ""
    nodes = [helper.make_node("Cast", ["attention_mask"], ["told"], to=TensorProto.INT32)]
    if kind == "lengths":
        nodes.append(helper.make_node("ReduceSum", ["told", "one"], ["lengths"], keepdims=0))
    if kind == "pairs":  # [batch query key]
        nodes += [
            helper.make_node("Unsqueeze", ["told", "one"], ["row"]), helper.make_node("Unsqueeze", ["told", "two"], ["column"]),
            helper.make_node("Mul", ["row", "column"], ["pairs"]),
        ]  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(np.array([at]), name) for at, name in ((1, "one"), (2, "two")))
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    return {"tokens": "told"}.get(kind, kind)


def _pruned(graph):
    """Without what no output rests on any more."""
    wanted = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.intersection(node.output):
            wanted.update(node.input)
        else:
            graph.node.remove(node)


def saved(path, out, change, **options):
    """A changed copy of a graph, beside a copy of what says its name."""
    proto = onnx.load(path)
    change(proto.graph, **options)
    _pruned(proto.graph)
    names = {opset.domain for opset in proto.opset_import}
    if "com.microsoft" not in names:
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    out.mkdir()
    onnx.save(proto, out / "model.onnx")
    return out / "model.onnx"
