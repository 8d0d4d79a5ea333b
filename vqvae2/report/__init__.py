"""The report: everything that a run folder holds, as one HTML file."""
