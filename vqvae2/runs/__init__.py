"""What a run is, its folder, its log, and complete runs by name."""
