"""What the researcher runs: build a job, check, simulate, submit, watch, report."""
