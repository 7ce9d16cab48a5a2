"""Plans: jobs, GPU-hours, critical path and disk of an experiment, and what a budget settles."""
