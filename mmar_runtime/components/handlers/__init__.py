"""Classes that run in place of handlers of MONAI: how and when they write, and what they tell."""
