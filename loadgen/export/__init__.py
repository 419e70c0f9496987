"""Files of a load: records, histogram logs, the formats of other tools.

Nothing in here measures or judges.
"""
