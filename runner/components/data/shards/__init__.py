"""Data sets in a few large local files: tar shards (WebDataset), and Parquet, Feather and Arrow files.

shard_settings.py: the knobs that choose splits, classes and the order of shards.
shard_files.py: the files that a folder, a file or a pattern names, by split.
shard_layout.py: from the images in shards to the splits of a run.
shard_identity.py: what identifies shards.
tar_headers.py: the members of a tar file, without reading their contents.
tar_samples.py: members that belong together as one example, and its label.
tar_index.py: the examples of a tar file, kept in the user's cache.
tar_images.py: images inside tar files, read when they are needed.
"""
