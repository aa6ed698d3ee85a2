"""What the parts of a graph are, in the words of the spec: found by running them."""
