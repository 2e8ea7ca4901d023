"""The messages between a site and a server of a federation, and their forms."""
