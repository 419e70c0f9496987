"""The past on the screen: charts from the history, recordings of the screen, their replay.

Belongs here: the transfer of facts between a store and files. Does not belong here: the file
formats (``llmtop.history``), and the sources that read engines (``tui.sources``).
"""
