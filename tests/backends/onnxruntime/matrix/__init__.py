"""Every exporter's graph of every architecture, opened and held to PyTorch: how much is found of each, and how right it is.

**Cell**: one exporter's (and rewriter's) graph of one architecture; `tests.backends.onnxruntime.exports` makes it. **Applicable**: the
sites of the checkpoint's own spec, but for those that no runtime hands out: a head's `result`, a norm's `scale` and `normalized`.
**Located**: handed out by the session, or derived by the core from what it hands out. **Equal**: located, and within 1e-5 of PyTorch's
value. **Differs**: the graph computes another model than its checkpoint; its sites are compared with PyTorch's weights put through the
equations of the spec that was read. **Coarse**: the weights are others than the checkpoint's (float16, int8, int4): of each site it is
asked whether it follows from the graph's own weights.

`python -m tests.backends.onnxruntime.matrix [EXPORTER …] [--arch A …] [--from DIR] [--write docs/onnxruntime-exports.md]`
"""
