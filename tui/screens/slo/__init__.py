"""Screens that keep a service level objective: the tune.

Belongs here: the form, the page and the keys of a tune. Does not belong here: the tune itself
(``tui/slo``), and its drawings (``tui/plots/slo``).
"""
