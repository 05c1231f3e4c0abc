"""Hostile inputs, made from a `Random`: the same state makes the same input, so one that finds an error can be tried again."""
