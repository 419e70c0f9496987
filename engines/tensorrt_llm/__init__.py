"""TensorRT-LLM: its adapter, options, configuration file, metrics and log patterns.

Imports ``core``, ``metrics``, ``tuning`` and ``logs``; never supervision, GPUs or another engine.
"""
