"""Shared by several commands: parameter types, output, the configuration file."""
