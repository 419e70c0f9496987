"""Drawings of what is expected and of what was tried: the forecast curve, the rows of a tune.

Belongs here: pure functions from values to rows. Does not belong here: how a forecast is made
(``tui/slo``), and the curves that were measured.
"""
