"""The state directory: engine records, the restart journal and temporary changes.

No other room reads or writes these files.
"""
