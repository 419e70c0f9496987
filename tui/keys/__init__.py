"""Keyboard input: key bindings, pasted text, the editor of one line."""
