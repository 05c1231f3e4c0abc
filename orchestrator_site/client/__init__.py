"""The command line `bin/run`: a client of the HTTP API. It knows neither Django nor the database, so it starts fast."""
