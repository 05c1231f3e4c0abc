"""The site: settings, the processes and what they are made of."""
