"""The kernel's wall around a process that runs a job with any documents.

Nothing here imports torch, MONAI or NumPy: the wall has to be up before a library starts a thread.
"""
