"""The past on the screen: charts from the history, recordings of what is shown, their replay.

Here: what carries facts between a store and files. Not here: the files (``llmtop.history``), and
what looks at engines (``tui.sources``).
"""
