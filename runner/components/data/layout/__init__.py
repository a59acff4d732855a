"""Files, classes and splits of a folder of images.

folder_layout.py: the image files of a folder with their labels and splits.
listing.py: image files with labels: as found, and in the splits of a run.
finish_layout.py: splits set aside, classes chosen, copies left out, the limit.
layout_settings.py: the knobs that choose images, labels, classes and splits.
image_groups.py: groups of images that stay in one split.
split_folders.py: which folders hold which split.
folder_identity.py: what identifies the images of a folder.
folder_listing.py: folders and image files, without hidden and system ones.
group_split.py: fixed, stratified splits of whole groups.
duplicates.py: the check of the splits for copies of images.
find_copies.py: which files have the same bytes or show the same image.
pixel_digests.py: digests of pixels, with as little decoding as possible.
"""
