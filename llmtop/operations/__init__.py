"""What the command line and the screen share to act on an engine. No terminal in here.

A script or a service that uses llmtop without a terminal starts here.
"""
