"""Formatting of numbers and durations, and escaping of texts, for every page, message and report."""
