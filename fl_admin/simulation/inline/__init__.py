"""A federation in one warm process: the same classes as in a deployed one, without NVFlare."""
