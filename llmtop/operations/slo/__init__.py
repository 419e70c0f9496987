"""Forecast, hold and tune on a real engine: executes the decisions of ``slo_control``.

Belongs here: gathering the inputs of a forecast, applying and restoring limits, one holder per
engine. Does not belong here: the decisions themselves, and printing.
"""
