"""The commands that speak to the server of a federation."""
