"""Forecast, hold and tune on a real engine: executes the decisions of ``slo_control``.

These modules read the input of a forecast, apply and restore limits, and ensure one holder per
engine. The decisions and the output are elsewhere.
"""
