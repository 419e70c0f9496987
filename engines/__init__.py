"""Engines: kinds, starts, metrics, options and stops.

Each part is a room. Nothing in here imports the screen or the load generator.
"""
