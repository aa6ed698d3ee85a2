"""Ten faults that people met, each made again in a tiny seeded model: what docs/compare-cases.md shows of them is what is printed."""
