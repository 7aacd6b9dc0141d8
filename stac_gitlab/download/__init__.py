"""Assets brought to disk."""
