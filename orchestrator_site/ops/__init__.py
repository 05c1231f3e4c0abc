"""What operators watch: health, metrics and the service's own log."""
