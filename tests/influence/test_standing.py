"""A token among all others: counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.influence.standing import standing


@pytest.mark.parametrize(
    ("id", "rank", "ranks"),
    [(0, 3, (3, 5)), (1, 1, (1, 1)), (2, 4, (3, 5)), (3, 2, (2, 2)), (4, 5, (3, 5)), (5, 6, (6, 6))],
)
def test_equally_likely_tokens_share_their_ranks_and_are_ordered_by_id(id, rank, ranks):
    odds = np.array([2.0, 8.0, 2.0, 4.0, 2.0, 1.0])
    found = standing(np.log(odds), id)
    assert (found.rank, found.ranks) == (rank, ranks)
    assert found.probability == pytest.approx(odds[id] / 19)
