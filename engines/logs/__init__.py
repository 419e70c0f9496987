"""Facts from the start-up log of any engine: phases, option values, memory.

The patterns of one engine belong in the folder of that engine.
"""
