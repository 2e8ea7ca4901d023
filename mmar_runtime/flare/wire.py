"""Names that server and site have for each other in NVFlare's messages."""

from __future__ import annotations

RECORD_TOPIC = "mmar.run_record"
"""The command by which an admin asks a running job for its record."""
