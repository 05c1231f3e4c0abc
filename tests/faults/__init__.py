"""The whole service while something is broken on purpose."""
