"""Infrastructure that both apps use. Nothing here imports jobs or callbacks."""
