"""Data sets: digits (embedded), torchvision's, folders of images, made ones."""
