"""Container engines: the contract is in `protocol`, its implementation in `docker`."""
