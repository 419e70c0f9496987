"""The clock, and the plain values of results that every room of ``loadgen`` shares.

Nothing in here computes a statistic or opens a socket.
"""
