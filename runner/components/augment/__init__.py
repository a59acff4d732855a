"""Augmentations of whole uint8 batches (B, C, H, W) on their device, with one random draw per image.

crop_flip.py: random crops, random resized crops and flips.
geometry.py: rotation, translation, shear, stretch, lens distortion and perspective.
warp.py: geometric augmentations as coordinate maps; neighbors are fused into one resampling.
color.py: brightness, contrast, saturation, hue, gray and PCA color shifts.
tone.py: solarize, posterize, equalize and blur.
boxes.py: random boxes, drawn again where they do not fit.
erase.py: cutout and random erasing.
policy.py: RandAugment, TrivialAugment and AugMix.
autoaugment.py: AutoAugment.
policy_ops.py: the operations that these policies draw from.
pixels.py: selection and cropping of uint8 pixels.
"""
