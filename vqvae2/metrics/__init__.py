"""What is measured, one metric a file; `evaluation.py` puts them together."""
