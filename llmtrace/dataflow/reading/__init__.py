"""What the parts of a graph are, in the words of the spec: found by running them.

**Reading**: from one part of an anatomy to its record, the values that hold its signals, each with its form, and the constants that hold
its weights. A part that the spec has no words for is unreadable, with the reason, and becomes opaque.
"""
