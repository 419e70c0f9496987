"""Drawings of forecasts and of tunes: the forecast curve, the rows of a tune.

Belongs here: pure functions from values to rows. Does not belong here: the forecast
itself (``tui/slo``), and measured curves.
"""
