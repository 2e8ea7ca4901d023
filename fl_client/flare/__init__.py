"""The door to NVFlare: its tasks and messages in, our values out, and back."""
