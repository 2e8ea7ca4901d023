"""Clara Train's import names, each standing for one class of this project; nothing else."""
