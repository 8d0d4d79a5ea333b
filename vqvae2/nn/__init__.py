"""Building blocks with plain arguments: they know nothing of codes, labels or runs."""
