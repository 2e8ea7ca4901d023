"""Sites that share a process."""
