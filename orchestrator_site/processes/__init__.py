"""The parts of the service that run beside `web`. Each imports what it needs only, so that it takes little memory."""
