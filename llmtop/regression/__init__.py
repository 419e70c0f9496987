"""Checks an engine for regressions: baselines, budgets, the judgement, and its summaries.

Belongs here: pure decisions from the figures of runs, and the files that ``llmtop check`` reads and
writes. Does not belong here: sending load, engines, processes, the screen.
"""
