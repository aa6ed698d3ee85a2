"""The schema: every site of a decoder with its axes and its equation. Importing this package fills the table."""

from llmtrace.schema import attention, ends, mlp, moe, norm  # noqa: F401  (each registers its equations)

SCHEMA_VERSION = 1
"""Raised when a site changes its meaning, its axes or its name; stands in every record and file."""
