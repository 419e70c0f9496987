"""Keyboard input: key bindings and pasted text."""
