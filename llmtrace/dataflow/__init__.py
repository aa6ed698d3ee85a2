"""What a graph of operators computes, in the words of the spec: for runtimes that run graphs and say nothing of the model in them.

**Graph**: vertices that read values and make others. Its vertices are called as ONNX's operators (`MatMul`, `Gather`, `Softmax`, or one of
ONNX Runtime's) and read what these read, in their order, whatever the graph was made of; who reads or records a graph translates. Names of
values say nothing.

The way to a spec: `graph` and `segments` follow what is made of what; `locating` finds a decoder's parts by that alone; `reading` runs
those parts, which the backend hands over as `pieces`, and `identify` names what they compute; `proof` holds all of it to the equations.
`forms` say how a signal lies in a value, `constants`, `unpacking` and `weights` what numbers the graph holds.
"""
