"""The simulated engine: its adapter, and the simulator program.

The program has vLLM's interface, so the adapter reuses parts of vLLM's adapter.
"""
