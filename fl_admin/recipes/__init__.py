"""A job as an NVFlare recipe."""
