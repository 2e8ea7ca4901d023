"""Jobs for a federation: made, read, described."""
