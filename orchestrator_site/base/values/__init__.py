"""URLs, image references and strict JSON, parsed in one place for configuration, API and outgoing requests; durations as text."""
