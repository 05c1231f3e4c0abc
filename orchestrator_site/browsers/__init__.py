"""What browsers see: the API's documentation and the admin's errors, and the headers that protect both."""
