"""What the log of any engine says while it starts: phases, decided options, memory.

The patterns of one engine belong in the folder of that engine.
"""
