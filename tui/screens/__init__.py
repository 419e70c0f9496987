"""Screens: panels arranged, and the keys that work on them."""
