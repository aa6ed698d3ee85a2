"""Pictures and tables of what was found. Nothing here computes a score; it reads the documents that `--json` prints."""
