"""Behind the screen: what settings are expected to do, which are best, and who keeps an SLO.

Belongs here: forecasts from the facts that the dashboard has, on a worker thread; a tune with its
own load; holders of engines. Does not belong here: the twin and the search themselves
(``llmtop.forecast``, ``llmtop.slo_control``), and how any of it is drawn.
"""
