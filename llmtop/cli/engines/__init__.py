"""Commands that look at engines or end them: ``ps``, ``logs``, ``once``, ``doctor``, ``stop``."""
