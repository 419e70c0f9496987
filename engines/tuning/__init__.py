"""Arguments and option values of an engine, and the client for live changes.

Which options an engine has belongs in the folder of that engine.
"""
