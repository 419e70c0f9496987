"""Forecasts, tunes and holds of one screen.

Belongs here: forecasts from the dashboard's facts, on a worker thread; a tune with its own load;
the holders of engines. Does not belong here: the simulation and the search themselves
(``llmtop.forecast``, ``llmtop.slo_control``), drawing.
"""
