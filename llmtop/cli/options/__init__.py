"""Commands that change an engine: ``options``, ``set``, ``restart``."""
