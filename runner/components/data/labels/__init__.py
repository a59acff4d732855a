"""Labels of images from folder names, CSV files and file names; labels as class names and numbers.

labels_from_csv.py: images with labels from a CSV file.
labels_from_names.py: images with labels from their file names.
labeled_images.py: from labels as words to classes in order.
csv_table.py: the rows of a CSV file with their line numbers.
label_columns.py: the columns of file, label, split and group.
find_files.py: which image a cell of a CSV file means.
class_names.py: which class folders are used, and the order of their labels.
class_labels.py: labels as class names and numbers.
one_class_each.py: labels that are no classes.
"""
