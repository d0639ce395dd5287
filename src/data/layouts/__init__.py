"""From the folders and tables of a data set to its labelled items."""
