"""Models: images (B, C, H, W) float -> logits (B, K). Each is given its activation and norm, and has Slots.

A model asks by name for what the run gives it: `shape`, the image shape (C, H, W); `num_classes`, K; `activation` and
`norm`, factories of the chosen activation and norm. The knobs are described where their defaults stand, in conf/model/.

feedforward.py: linear, mlp, cnn and vgg.
resnet.py: residual networks and wide residual networks.
speedrun.py: resnet9 and patch_cnn, for fast training on small images.
vit.py: vision transformers.
library_models.py: models of torchvision and timm.
layers.py: convolutions and linear layers with norms, and size checks.
residual_blocks.py: residual blocks and shortcuts.
stages.py: the stages of any model, from the input to the head.
surgery/: adapts models of other libraries to the config's activation and norm.

A Slot is an identity that marks where a regularizer may insert a module.
"""
