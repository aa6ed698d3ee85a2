"""The reference backend: it executes the equations of the schema in order, in NumPy, and has no forward pass of its own.

Slow, plain and exact (float64): what a runtime's numbers are held against. A plugin like any other.
"""
