"""Screens about the inside of an engine: its steps, its requests, and why it is slow.

Belongs here: what is drawn from steps and requests, and the questions before a request is aborted
or an option is changed. Does not belong here: the drawings themselves (``tui/plots``).
"""
