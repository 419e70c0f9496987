"""Commands that start engines or the screen: ``run``, ``attach``, ``demo``, ``up``, ``down``."""
