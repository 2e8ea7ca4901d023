"""Objects become an engine, the engine runs, and the run returns a value."""
