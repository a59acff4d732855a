"""Models: (B, C, H, W) float -> logits (B, K). Each is given its activation and norm, and marks places with Slots."""
