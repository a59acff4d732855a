"""What a run writes down as it goes: rows of numbers, for files and screens."""
