"""What both apps stand on; nothing here knows jobs or callbacks."""
