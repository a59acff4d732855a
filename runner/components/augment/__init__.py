"""Augmentations of whole uint8 batches on their device, with one draw per image."""
