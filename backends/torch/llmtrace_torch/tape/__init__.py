"""A run of a PyTorch model, written down. **Tape**: the ATen operators of one forward pass in order, with what each read and made; **value**:
a tensor, by a name that says nothing; **leaf**: a value that no operator of the run made: a parameter, a buffer, a constant.

`record` writes a tape, `lengths` finds what in it follows from the prompt's length, `operators` says which of ONNX's operators does the same,
`graph` makes a graph for `llmtrace.dataflow` of it, and `replay` runs parts of it on other numbers.
"""
