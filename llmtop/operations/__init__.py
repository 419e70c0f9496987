"""Operations on engines, shared by the command line and the screen. Nothing here uses a terminal.

A script or a service that uses llmtop without a terminal starts here.
"""
