"""Measuring a trained run, one question per file."""
