"""The loops that take part, one file each: `run(work, pace)` trains as its users do and returns the model."""
