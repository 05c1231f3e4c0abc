"""Who may call the API: namespaces and API keys (a Django app of its own, which both apps may import)."""
