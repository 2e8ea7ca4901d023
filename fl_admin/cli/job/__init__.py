"""``mmar job``: the commands that make a job or show it."""
