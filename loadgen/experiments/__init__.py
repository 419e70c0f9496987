"""Levels, the search for saturation, and the paired comparison. They drive a load.

Statistics that do not need a load are in ``statistics``; files are written in ``export``.
"""
