"""Sphinx: `sphinx-build -W docs docs/_build`. The tests build it; a warning is an error."""

from __future__ import annotations

project = "LLMTrace"
author = "The LLMTrace authors"
copyright = "The LLMTrace authors"
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "generate", "schemas"]
html_theme = "furo"
html_title = "LLMTrace"
html_copy_source = False
