"""What only one system does."""
