"""Benchmarks (`bin/bench`)."""
