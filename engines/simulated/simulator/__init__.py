"""The program ``python -m llmtop.engines.simulated.simulator``.

llmtop starts it as a child process, like any other engine, and never imports it.
"""
