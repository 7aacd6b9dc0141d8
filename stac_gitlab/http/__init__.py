"""HTTP requests: sent with care, retried, and explained when they fail."""
