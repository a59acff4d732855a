"""The loops of a contest, one file per framework: `run(work, pace)` trains as its users do and returns the model."""
