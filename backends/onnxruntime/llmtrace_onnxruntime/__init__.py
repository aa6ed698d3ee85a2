"""ONNX graphs, as ONNX Runtime computes them."""
