"""Commands about the inside of an engine: ``why``, ``steps``, ``requests``, ``abort``."""
