"""Models to test with: the hand-built one, whose answers are known, and tiny seeded ones of every family."""
