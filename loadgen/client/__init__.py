"""Sockets: the transports, model discovery, and a paced server for the calibration.

This package starts no process and does not decide what is sent next.
"""
