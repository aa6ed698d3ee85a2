"""The prompts that models are compared on where none are given: prose, code, numbers, other scripts, and a repetition for induction."""

from __future__ import annotations

PROBES: tuple[str, ...] = (
    "When Mary and John went to the store, John gave a drink to Mary. When Mary and",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4))  # 12\n",
    "On 17 March 1987, 4,096 of 65,536 samples were lost: 6.25 %. Überraschend? 東京 — да, ναι.",
    "one two three four five six seven eight nine ten one two three four five six seven eight nine",
)
IDS = (12, 24, 7)
"""How many ids stand in for them where the models have no tokenizer."""


def ids(vocab: int, context: int | None) -> list[list[int]]:
    """Prompts of token ids, spread over the vocabulary."""
    return [[(place * 7919 + 31 * seed) % vocab for place in range(min(n, context or n))] for seed, n in enumerate(IDS)]
