"""Planted faults: what `compare` finds of mistakes that were made on purpose, and whether it is silent where none was made.

**Fault**: a row of data, what is done to a tiny model and what must be said of it. **Base**: the tiny model, a seeded checkpoint of one
family. **Planted** by its config or its tensors, in a copy of the checkpoint, so that every runtime gets the same fault; by its code, in
PyTorch's modules after the model was opened; or by a converter, which writes another model than it was given. **Column**: a runtime and a
precision that a faulty model is opened in. **Seen**: larger, at its site, than what the column's precision explains; a fault that is not has
to be passed over, and no other site named.

`python -m tests.comparison.faults [--only NAME …] [--write docs/compare-faults.md]`
"""
