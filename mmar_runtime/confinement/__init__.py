"""The kernel's wall around a process that runs a job, whatever the job's documents say.

Nothing here imports torch, MONAI or NumPy: the wall has to be up before a library starts a thread.
"""
