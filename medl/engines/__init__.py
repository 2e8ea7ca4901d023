"""Clara's base classes for code that an MMAR brings along."""
