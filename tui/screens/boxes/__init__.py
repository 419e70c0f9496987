"""The choice of the boxes that the dashboard shows.

Here: the dialog. Not here: where boxes stand and what is remembered of them (``tui.layout``).
"""
