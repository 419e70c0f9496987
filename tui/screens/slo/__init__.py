"""Screens that keep a service level objective: the tune.

Belongs here: the form, the picture and the keys of a tune. Does not belong here: the tune itself
(``tui/slo``), and what is drawn of it (``tui/plots/slo``).
"""
