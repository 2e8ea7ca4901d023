"""What a site remembers of a job, whichever process does the work."""
