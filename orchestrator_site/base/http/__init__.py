"""What the views of the API share: keys, errors, JSON bodies, parameters, long polls."""
