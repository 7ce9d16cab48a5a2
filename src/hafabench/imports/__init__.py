"""Imports of numbers that were measured elsewhere; see docs/imports.md. Their records are marked as imported."""
