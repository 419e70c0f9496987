"""Histograms, quantiles, intervals and error bounds, and the layout of the shared memory.

Pure, apart from the shared memory.
"""
