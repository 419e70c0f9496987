"""Introspection of the simulated engine for protocol 2 of the live socket; no socket here.

The step ring, the histograms and the request table are those of real engines (``llmtop_live``).
"""
