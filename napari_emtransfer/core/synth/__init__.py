"""Synthetic micrographs with exact masks."""
