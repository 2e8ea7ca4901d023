"""Clara Train's import names, each standing for what this project has in that place; no more."""
