"""The state directory: records of engines, journals of restarts and temporary changes.

The only owner of these files.
"""
