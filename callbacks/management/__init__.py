"""Django's place for the commands of `callbacks`."""
