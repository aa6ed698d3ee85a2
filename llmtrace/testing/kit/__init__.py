"""The conformance kit, one concern a file. **Law**: what a test holds a backend to; its docstring says it, and the kit's docs list it."""
