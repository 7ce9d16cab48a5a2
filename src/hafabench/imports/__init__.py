"""Numbers that were measured elsewhere, read into records that say so; docs/imports.md."""
