"""Data sets: embedded, downloaded, folders of images, arrays, tables and synthetic.

The knobs are described where their defaults stand, in conf/data/.

digits.py: scikit-learn's handwritten digits.
torchvision_sets.py: CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST and SVHN, downloaded by torchvision.
synthetic.py: spirals, blobs, shapes and Gaussian noise, generated from a seed.
imagefolder.py: any folder of images.
arrays.py: images or features of an .npz file.
table.py: features of a CSV or Parquet file.
packed_identity.py: what identifies a downloaded set.
copies.py: messages about copies of examples, and what `drop` leaves out.
splitting.py: fixed, stratified splits and samples.
download.py: atomic downloads and folder locks.
pixels/: how an image file becomes pixels: decoding, colors, validation, cache.
layout/: files, classes and splits of a folder of images.
labels/: labels of images from folder names, CSV files and file names; labels as class names and numbers.
in_memory/: arrays and tables that are read into memory.
"""
