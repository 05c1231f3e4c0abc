"""Users of the admin who belong to a namespace and see only what is in it (a Django app, of `web` alone)."""
