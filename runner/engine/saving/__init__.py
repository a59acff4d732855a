"""What a run keeps: its folder, its checkpoints, and the one door to the disk."""
