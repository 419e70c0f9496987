"""Operations on an engine that the command line and the screen share. No terminal in here.

A script or a service that uses llmtop without a terminal starts here.
"""
