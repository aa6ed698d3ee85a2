"""What looking costs a PyTorch model, in time and memory, beside its bare forward pass and beside peers: `docs/performance.md`.

**Bare**: the forward pass of the same model object with transformers' own choice of attention, and nothing looked at. **Run**: one way of
looking. **Streamed**: each signal is handed over and not kept; **kept**: it is in a trace afterwards. **Sixteen**: the signals of a layer that
all tools compared here can hold, so that tools are compared on the same bytes. **Floor**: the bare pass, and what is kept copied once into new
memory. **Peer**: another tool, in an environment of its own.

`python -m tests.benchmarks.performance [--write docs/performance.md]`
"""
