"""What a site reads and judges of a job."""
