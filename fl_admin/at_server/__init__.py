"""Jobs at a server, and their results."""
