"""URLs and image references, parsed in one place for the configuration, the API and outgoing requests."""
