"""SGLang: its adapter, options, metrics, log patterns, and the plugin that runs inside it.

Imports ``core``, ``metrics``, ``tuning`` and ``logs``; never supervision, GPUs or another engine.
"""
