"""How much the PyTorch backend finds of each type of decoder that transformers has, read off a tiny seeded model as it runs.

**Type**: a `model_type` of transformers' mapping of causal language models. **Counted**: it is a decoder (`counted`). **Structural**: embed,
the residual stream, what each branch adds, the final norm and the logits, and in each layer with attention its pattern, `z` and `z_post`, are
there, handed out or derived, follow from their equations, and equal what the model itself computes (`held`). **Full**: besides, every branch
has its equations, every site is there, and every equation holds and says something.

`python -m tests.benchmarks.coverage [--only WORD …] [--processes N] [--write docs/torch-coverage.md]`
"""
