"""Arrays and tables that are read into memory.

array_names.py: which arrays are examples and labels, of which split.
array_values.py: arrays as pixels or features.
find_rows.py: equal examples in several splits.
leaking_columns.py: columns of a table that tell the label.
npz_file.py: arrays of an .npz file, read without pickle and within a size.
split_examples.py: splits of examples in memory.
table_columns.py: columns as features.
table_file.py: columns of a CSV or Parquet file.
"""
