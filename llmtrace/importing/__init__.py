"""Others' recordings as traces. **Dump**: arrays by name that another tool recorded of one model: a TransformerLens cache, a mapping,
a directory of `.npy` files, an `.npz` or a `.safetensors` file. **Map**: what its names mean, where they are neither our sites nor
TransformerLens's hooks.

What a dump lacks is who it is of: the model that is named says which sites there are, and of which shape. It also says what their
values should be, so what was imported is held against the model's equations before anything is made of it.
"""
