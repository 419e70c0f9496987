"""The folder on an engine's PYTHONPATH. It contains only ``llmtop_live``.

The simulated engine, which runs in llmtop's Python, imports it from here.
"""
