"""Screens about the inside of an engine: its steps, its requests, why it is slow, and its hold.

Belongs here: these screens, and the questions before a request is aborted, an option is changed or
a hold begins or ends. Does not belong here: the drawings themselves (``tui/plots``).
"""
