"""Runs small enough to train in seconds, on images that are made for them."""
