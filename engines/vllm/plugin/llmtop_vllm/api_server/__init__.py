"""What runs in a front end of vLLM, a process of its API server: the queue limit, aborts, TTFT.

Here: whatever needs an ``AsyncLLM`` or an HTTP request. Not here: the engine core's process, whose
scheduler and steps are in the modules beside this folder.
"""
