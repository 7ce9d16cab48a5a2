"""Plans of experiments: GPU-hours, schedule, disk space, and the runs that settle the most claims within a budget."""
