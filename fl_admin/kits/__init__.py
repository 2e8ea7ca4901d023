"""Start-up kits: made, set up, and what their owner approves."""
