"""What operators monitor: health, metrics and the log of the service."""
