"""What a data set holds: its files, tables, names and words."""
