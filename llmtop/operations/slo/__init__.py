"""Forecast, hold and tune on a real engine: what carries the decisions of ``slo_control`` out.

What belongs here: gathering what a forecast needs, putting limits in force and back, one holder to
an engine. What does not: the decisions themselves, and printing.
"""
