"""HTTP GETs to engines, the exposition parser, and the conversion of readings to samples.

Which series an engine publishes belongs in the folder of that engine.
"""
