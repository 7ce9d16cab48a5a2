"""Statistics: means over seeds, paired comparisons and confidence intervals."""
