"""What is sent and when: shapes, arrivals, lengths, prompts.

No socket, no process, and no clock: time is passed in.
"""
