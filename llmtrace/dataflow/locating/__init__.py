"""Where a decoder's parts are in a graph: by dataflow and the names of operators, without running it and without looking at a number.

**Anatomy**: what was found, as values and vertices of the graph; **cell**: one branch of a block in it. A branch that is of no known kind
is an opaque cell, with the reason; a graph that is no decoder is refused.
"""
