"""Commands that send load: ``load``, ``saturate``, ``compare``, ``calibrate``."""
