"""Django's place for the commands of `orchestrator_site`."""
