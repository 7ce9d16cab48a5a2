"""Slurm clusters: check a site, show the status of jobs, account for them, recover from a killed driver."""
