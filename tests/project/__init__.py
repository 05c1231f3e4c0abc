"""Tests of the commands in bin/ and of the documents."""
