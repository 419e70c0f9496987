"""What was seen of engines, kept: the history of this machine, and recordings as files.

Here: the SQLite history with its one writer, the recording format with its writer and reader, and
the values that both hold. Not here: the process that records (``llmtop.recorder``), and what a
screen makes of either (``tui.sources``).
"""
