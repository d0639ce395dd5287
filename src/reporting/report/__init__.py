"""The report of a data set: a page of all models and recipes, and a page of each."""
