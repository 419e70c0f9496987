"""The command line: one module for each command, grouped by what the commands are about."""
