"""The outcome of a federated run as JSON, CSV and HTML."""
