"""The simulated engine: its adapter, and the program that plays it.

The adapter builds on that of vLLM, whose interface the program speaks.
"""
