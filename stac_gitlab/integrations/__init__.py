"""What other tools need to use this package: notebooks."""
