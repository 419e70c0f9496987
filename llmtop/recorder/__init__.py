"""The recorder: a background process that samples engines and writes the samples to the history.

Belongs here: the process, and which engines and values it records. Does not belong here: the file
(``llmtop.history``), the start of the process (``llmtop.operations.recorder_process``), and the
sampling itself (``llmtop.tui.sources``).
"""
