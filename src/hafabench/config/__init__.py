"""The schemas of the files that a user writes, and the readers that report every problem with its line."""
