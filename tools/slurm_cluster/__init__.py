"""A real Slurm with virtual nodes on this machine, for tests and demonstrations."""
