"""Completion scripts: a module for each shell writes the same outline in its language. None starts tabi at a Tab."""
