"""A Slurm cluster: what a site calls things."""
