"""Paths, partial files and checksums."""
