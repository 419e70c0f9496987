"""The choice of the boxes that the dashboard shows.

Belongs here: the dialog. Does not belong here: the places of boxes, and the file of hidden ones
(``tui/layout``).
"""
