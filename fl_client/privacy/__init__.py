"""Privacy filters: their settings, their order, and what is spent."""
