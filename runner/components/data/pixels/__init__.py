"""How an image file becomes pixels: decoding, colors, validation, cache.

decode.py: one image file to pixels, whole or as a random crop.
color_modes.py: pixels of any mode to 8-bit gray or RGB.
fit_image.py: an image scaled to a size of another aspect ratio.
decoder_messages.py: what decoders say about a file, kept by kind.
scan_images.py: whether all training images are gray, and which range they use.
auto_colors.py: what `color=auto` and `depth=auto` mean.
image_files.py: many image files to pixels, by a pool of threads, with a progress bar.
prepare_images.py: a split decoded into cache or memory, or validated.
validate_images.py: checks that every image file can be decoded.
image_cache.py: decoded images on disk.
pixel_settings.py: the knobs that say how a file becomes pixels.
image_kinds.py: which files are images, by suffix or first bytes, and the formats that Pillow may find in them.
"""
