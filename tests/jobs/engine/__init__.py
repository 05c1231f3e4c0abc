"""Tests of `jobs.engine`: the contract of every engine."""
