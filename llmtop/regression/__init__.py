"""Whether an engine is as good as it was: baselines, budgets, the judgement, and its summaries.

Belongs here: pure decisions over the figures of runs, and the files that ``llmtop check`` reads and
writes. Does not belong here: sending load, engines, processes, the screen.
"""
