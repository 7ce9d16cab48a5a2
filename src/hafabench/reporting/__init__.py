"""Tables, charts and reports, made from the collected frame."""
