"""What the live socket shows of the simulated engine's inside, under protocol 2; no socket here.

The ring, the histograms and the table are those of the real engines (``llmtop_live``).
"""
