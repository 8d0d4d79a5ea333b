"""Evaluation of a trained run, one question per file."""
