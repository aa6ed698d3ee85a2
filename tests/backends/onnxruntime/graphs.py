"""A hand-built decoder of one block and one head in ONNX, and the same in NumPy: an oracle that shares no code with the backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCAB, WIDTH, CONTEXT = 97, 16, 24
NAMES = ("input_ids", "attention_mask", "position_ids", "past_key_values.0.key", "past_key_values.0.value")
VALUE = helper.make_tensor_value_info


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"wte": (VOCAB, WIDTH), "wpe": (CONTEXT, WIDTH), "W_U": (WIDTH, VOCAB)} | dict.fromkeys(
        ("W_Q", "W_K", "W_V", "W_O"), (WIDTH, WIDTH)
    )
    return {name: (rng.standard_normal(shape) / 4).astype(np.float32) for name, shape in shapes.items()}


def computed(tokens, seed: int = 0) -> dict[str, np.ndarray]:
    """Every value of interest, without a batch axis."""
    w, n = weights(seed), len(tokens)
    x = w["wte"][np.asarray(tokens)] + w["wpe"][:n]
    scores = np.where(np.tri(n, dtype=bool), (x @ w["W_Q"]) @ (x @ w["W_K"]).T, -1e9)
    pattern = np.exp(scores - scores.max(-1, keepdims=True))
    pattern /= pattern.sum(-1, keepdims=True)
    y = x + pattern @ (x @ w["W_V"]) @ w["W_O"]
    return {"embedded": x, "pattern": pattern, "y": y, "logits": y @ w["W_U"]}


def node(op, reads, makes, **attributes):
    return helper.make_node(op, reads.split(), makes.split(), name=f"node of {makes.split()[0]}", **attributes)


def decoder(
    *, seed: int = 0, names=NAMES, past: bool = True, mask: str = "ones", last: str = "", vocab_first: bool = True
) -> onnx.ModelProto:
    """`mask`: `ones`, `added`, `may` or `may_not`; `last`: how the graph cuts the logits, `slice`, `gather`, `index`, `after`, `keep`."""
    ids, mask_name, positions, past_key, past_value = names
    consts = {"one": [1], "zero": [0], "minus": [-1], "three": [3], "axis2": [2], "huge": [2**31], "first": 1}
    inits = [numpy_helper.from_array(array, name) for name, array in weights(seed).items()]
    inits += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in consts.items()]
    inits += [
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in {"low": -1e9, "unit": 1.0}.items()
    ]
    inits += [numpy_helper.from_array(np.array(-1, np.int64), "last")]
    nodes = [
        node("Gather", f"wte {ids}", "token_part"), node("Gather", f"wpe {positions}", "position_part"),
        node("Add", "token_part position_part", "embedded"),
        node("MatMul", "embedded W_Q", "q3"), node("MatMul", "embedded W_K", "k3"), node("MatMul", "embedded W_V", "v3"),
        *(node("Unsqueeze", f"{letter}3 one", f"{letter}") for letter in "qkv"),
    ]  # fmt: skip
    fed = [
        VALUE(ids, TensorProto.INT64, ["batch", "sequence"]),
        VALUE(positions, TensorProto.INT64, ["batch", "sequence"]),
    ]
    outs = []
    if past:
        nodes += [
            node("Concat", f"{past_key} k", "present.key", axis=2),
            node("Concat", f"{past_value} v", "present.value", axis=2),
        ]
        fed += [VALUE(name, TensorProto.FLOAT, ["batch", 1, "past", WIDTH]) for name in (past_key, past_value)]
        outs += [
            VALUE(name, TensorProto.FLOAT, ["batch", 1, "total", WIDTH]) for name in ("present.key", "present.value")
        ]
    key, value = ("present.key", "present.value") if past else ("k", "v")
    nodes += [node("Transpose", key, "k_t", perm=[0, 1, 3, 2]), node("MatMul", "q k_t", "products")]
    nodes += _masked(mask, mask_name, ids, fed)
    nodes += [
        node("Softmax", "scores", "pattern", axis=-1), node("MatMul", f"pattern {value}", "z4"), node("Squeeze", "z4 one", "z"),
        node("MatMul", "z W_O", "attn_out"), node("Add", "embedded attn_out", "y"),
    ]  # fmt: skip
    head = "y"
    if last == "slice":
        nodes.append(node("Slice", "y minus huge one", "cut"))
        head = "cut"
    elif last == "keep":
        fed.append(VALUE("num_logits_to_keep", TensorProto.INT64, [1]))
        nodes += [node("Neg", "num_logits_to_keep", "from"), node("Slice", "y from huge one", "cut")]
        head = "cut"
    elif last == "gather":
        nodes.append(node("Gather", "y minus", "cut", axis=1))
        head = "cut"
    elif last == "index":
        nodes += [node("Gather", "y last", "row", axis=1), node("Unsqueeze", "row one", "cut")]
        head = "cut"
    nodes.append(node("MatMul", f"{head} W_U", "all" if last == "after" else "logits"))
    if last == "after":
        nodes.append(node("Gather", "all minus", "logits", axis=1))
    out = VALUE(
        "logits",
        TensorProto.FLOAT,
        ["batch", 1 if last in {"gather", "index", "after"} else "cut" if last else "sequence", VOCAB],
    )
    graph = helper.make_graph(nodes, "decoder", fed, [out, *outs] if vocab_first else [*outs, out], inits)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _masked(mask, name, ids, fed):
    if mask == "ones":
        fed.append(VALUE(name, TensorProto.INT64, ["batch", "total"]))
        return [
            node("Shape", ids, "lengths"), node("Gather", "lengths first", "n", axis=0), node("Unsqueeze", "n zero", "n1"),
            node("Concat", "n1 n1", "square", axis=0), node("ConstantOfShape", "square", "zeros"),
            node("Add", "zeros unit", "ones"), node("Trilu", "ones", "lower", upper=0), node("Cast", "lower", "may", to=TensorProto.BOOL),
            node("Cast", name, "counts", to=TensorProto.FLOAT), node("Sub", "unit counts", "hidden"), node("Mul", "hidden low", "padding"),
            node("Constant", "", "one_two", value_ints=[1, 2]), node("Unsqueeze", "padding one_two", "padding4"),
            node("Where", "may products low", "causal"), node("Add", "causal padding4", "scores"),
        ]  # fmt: skip
    kind = TensorProto.FLOAT if mask == "added" else TensorProto.BOOL
    fed.append(VALUE(name, kind, ["batch", 1, "sequence", "total"]))
    made = {
        "added": node("Add", f"products {name}", "scores"),
        "may": node("Where", f"{name} products low", "scores"),
        "may_not": node("Where", f"{name} low products", "scores"),
    }
    return [made[mask]]


def save(proto: onnx.ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def save_external(proto: onnx.ModelProto, path: Path, data: str = "model.onnx.data") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save_model(copy, path, save_as_external_data=True, location=data, size_threshold=512)
    return path


def external(proto: onnx.ModelProto) -> onnx.TensorProto:
    """The first weight that is in another file."""
    return next(tensor for tensor in proto.graph.initializer if tensor.data_location == TensorProto.EXTERNAL)


def placed(path: Path, **entries) -> Path:
    """The file with some entries of its first external weight changed."""
    proto = onnx.load(path, load_external_data=False)
    for key, value in entries.items():
        tensor = external(proto)
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = str(value)
    return save(proto, path)
