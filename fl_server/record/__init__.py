"""What a run leaves: who contributed what, and each model at each site."""
