"""The API of destinations."""
