"""Reads what the causes of an engine's state are judged by, and words the answer.

Belongs here: steps, latencies, GPUs and load of one engine, brought together for ``diagnosis``.
Does not belong here: the rules themselves.
"""
