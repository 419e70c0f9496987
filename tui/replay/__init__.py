"""The screen of a replay: the dashboard fed by a file, and its keys that move in time.

Not here: the file and its player (``llmtop.history``, ``tui.history``).
"""
