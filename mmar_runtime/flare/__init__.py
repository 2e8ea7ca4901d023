"""What both sides of the wire need of NVFlare; the rest of the runtime knows nothing of it."""

HANDOVER = "MMAR_HANDOVER"
"""The environment variable with the folder by which processes of one machine hand models over."""
