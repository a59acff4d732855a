"""The front door: a command line becomes a checked config, or one line that says what is wrong with it; no torch."""
