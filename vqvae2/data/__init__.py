"""Images, the built-in labelled set, code maps and the order in which training sees them."""
