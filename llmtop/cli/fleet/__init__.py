"""Commands about many instances and about monitoring: ``fleet``, ``export``, ``watch``."""
