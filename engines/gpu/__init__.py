"""GPUs: devices, their memory, their processes, their energy.

The only room that imports pynvml.
"""
