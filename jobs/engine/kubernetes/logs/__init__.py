"""The logs of pods."""
