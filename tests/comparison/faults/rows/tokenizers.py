"""Faults of a tokenizer: the model is right, and reads something else."""

from __future__ import annotations

from typing import Any

from tests.comparison.faults.bases import READS
from tests.comparison.faults.fault import Fault

READ = ("tokens",)


def _no_bos(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"] = None


def _two_bos(tokenizer: dict[str, Any]) -> None:
    single = tokenizer["post_processor"]["single"]
    single.insert(0, single[0])


def _lower(tokenizer: dict[str, Any]) -> None:
    tokenizer["normalizer"] = {"type": "Lowercase"}


def _no_merges(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["merges"] = []


def _other_ids(tokenizer: dict[str, Any]) -> None:
    vocab = tokenizer["model"]["vocab"]
    vocab["e"], vocab["o"] = vocab["o"], vocab["e"]


ROWS = (
    Fault("no token that begins a text", READS, READ, ("<bos>", "not put in front"), tokenizer=_no_bos),
    Fault("the token that begins a text twice", READS, READ, ("<bos>", "twice"), tokenizer=_two_bos),
    Fault("text in lower case", READS, READ, ("'a' instead of 'a'",), tokenizer=_lower),
    Fault("merges lost", READS, READ, ("'t' instead of 'th'",), tokenizer=_no_merges),
    Fault("two tokens under each other's ids", READS, READ, ("other ids",), tokenizer=_other_ids),
)
