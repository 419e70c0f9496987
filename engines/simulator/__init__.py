"""The simulated engine: a vLLM-like server on a virtual GPU.

It is a program, ``python -m llmtop.engines.simulator``, and is started like any other engine; no
other part of llmtop imports it. What it claims to be, how it was calibrated and where it is off is
in ``docs/simulator.md``.
"""
