"""The screen of a replay: the dashboard with data from a file, and keys that move in time.

Does not belong here: the file and its player (``llmtop.history``, ``tui.history``).
"""
