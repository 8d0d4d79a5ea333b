"""Metrics, one per file; `describe` names them and `results` holds their values."""
