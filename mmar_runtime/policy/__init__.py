"""The checks of a configuration: its components, their arguments and their files."""
