"""The files that a user writes: one schema per file, read with line numbers and checked whole."""
