"""Images that models make, written as files."""
