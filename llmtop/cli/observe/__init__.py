"""Commands that look inside an engine, or act there: why, steps, requests, abort."""
