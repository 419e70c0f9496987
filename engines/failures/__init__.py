"""Why an engine failed: the errors in its log, and the tables of causes with advice.

A cause that only one engine has belongs in the folder of that engine.
"""
