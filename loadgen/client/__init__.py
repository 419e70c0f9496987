"""Sockets: the transports, model discovery, and a paced server for the calibration.

No process, and no decision about what is sent next.
"""
