"""Building blocks with plain arguments, independent of codes, labels and runs."""
