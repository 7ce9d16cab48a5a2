"""What is made of the collected frame: tables, figures, the report."""
