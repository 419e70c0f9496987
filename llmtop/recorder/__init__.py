"""The recorder: a dashboard without a screen, which writes what it sees into the history.

Here: the process and what it writes. Not here: the file (``llmtop.history``), the start of the
process (``llmtop.operations.recorder_process``), what it looks at (``llmtop.tui.sources``).
"""
