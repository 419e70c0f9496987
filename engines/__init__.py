"""Engines: what they are, how they start, what they report, how they are tuned and stopped.

The parts are rooms of their own. Nothing in here knows the screen or the load generator.
"""
