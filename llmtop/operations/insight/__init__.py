"""Reads the data for the diagnosis of one engine, and formats the explanation.

The data are steps, latencies, GPUs and load. The rules of the diagnosis are in ``diagnosis``.
"""
