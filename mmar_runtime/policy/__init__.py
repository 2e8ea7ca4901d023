"""What a configuration may do here: which components, with which arguments, on which files."""
