"""Slurm clusters: checks of a site, status and cost of jobs, and recovery from a killed driver."""
