"""Stored measurements of engines: the history of this machine, and recordings as files.

Belongs here: the SQLite history with its single writer, the recording format with its writer and
reader, and the values that both store. Does not belong here: the process that records
(``llmtop.recorder``), and how a screen shows either of them (``tui.sources``).
"""
