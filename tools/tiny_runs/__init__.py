"""Runs that are small enough to train in seconds, on generated images."""
