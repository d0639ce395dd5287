"""A made-up data set to try everything on."""
