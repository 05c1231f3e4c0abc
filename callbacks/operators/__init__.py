"""What clients and operators ask for: how events were delivered, redelivery, and control over destinations."""
