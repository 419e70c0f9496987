"""Arguments and option values of an engine, and the client that changes options while it runs.

Which options an engine has belongs in the folder of that engine.
"""
