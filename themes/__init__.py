"""Colours by meaning: theme files and the loader that turns them into plain values."""
