"""Sampling codes from priors: position by position, level by level."""
