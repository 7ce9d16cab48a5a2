"""Formatting of numbers, durations and Markdown tables for every page, message and report."""
