"""Data sets: embedded, downloaded, folders of images, arrays, tables and synthetic.

The knobs are described where their defaults stand, in conf/data/.

digits.py: scikit-learn's handwritten digits.
torchvision_sets.py: CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST and SVHN, downloaded by torchvision.
synthetic.py: spirals, blobs, shapes and Gaussian noise, generated from a seed.
imagefolder.py: any folder of images.
arrays.py: images or features of an .npz file.
npz_file.py: arrays of an .npz file, read without pickle and within a size.
array_names.py: which arrays are examples and labels, of which split.
array_values.py: arrays as pixels or features.
table.py: features of a CSV or Parquet file.
table_file.py: columns of a CSV or Parquet file.
table_columns.py: columns as features.
class_labels.py: labels as class names and numbers.
split_examples.py: splits of examples in memory.
folder_layout.py: the image files of a folder with their labels and splits.
listing.py: image files with labels: as found, and in the splits of a run.
finish_layout.py: splits set aside, classes chosen, copies left out, the limit.
layout_settings.py: the knobs that choose images, labels, classes and splits.
labels_from_csv.py: images with labels from a CSV file.
labels_from_names.py: images with labels from their file names.
labeled_images.py: from labels as words to classes in order.
csv_table.py: the rows of a CSV file with their line numbers.
label_columns.py: the columns of file, label, split and group.
find_files.py: which image a cell of a CSV file means.
image_groups.py: groups of images that stay in one split.
duplicates.py: what is said and done about copies of images in several splits.
find_copies.py: which files have the same bytes or show the same image.
pixel_digests.py: digests of pixels, with as little decoding as possible.
split_folders.py: which folders hold which split.
folder_identity.py: what identifies the images of a folder.
packed_identity.py: what identifies a downloaded set.
folder_listing.py: folders and image files, without hidden and system ones.
class_names.py: which class folders are used, and the order of their labels.
image_kinds.py: which files are images, by suffix or first bytes, and the formats that Pillow may find in them.
splitting.py: fixed, stratified splits and samples.
pixel_settings.py: the knobs that say how a file becomes pixels.
group_split.py: fixed, stratified splits of whole groups.
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
download.py: atomic downloads and folder locks.
"""
