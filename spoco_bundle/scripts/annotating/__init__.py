"""Where annotating one more object teaches most."""
