"""The configuration, read from environment variables."""
