"""Metrics of a job: which may leave, and which way is better."""
