"""Commands that start and stop engines or open the dashboard: ``run``, ``attach``, ``demo``,
``up``, ``down``."""
