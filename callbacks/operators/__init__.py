"""What clients and operators may ask of events: what became of them, and sending them again."""
