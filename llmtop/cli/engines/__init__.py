"""Commands that show or end engines: ``ps``, ``logs``, ``once``, ``doctor``, ``stop``,
``forget``."""
