"""Images and codes as data sets, from any source."""
