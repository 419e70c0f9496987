"""Commands that forecast an engine, tune its settings, or keep an SLO: ``forecast``, ``tune``,
``hold``."""
