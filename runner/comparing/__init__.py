"""Runs beside each other: read, grouped by configuration, compared without claiming more than the seeds say."""
