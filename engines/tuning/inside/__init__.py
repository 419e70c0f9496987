"""The folder that an engine gets on its PYTHONPATH: ``llmtop_live``, nothing else.

The simulated engine, which runs in llmtop's own Python, imports it from here.
"""
