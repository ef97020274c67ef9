"""A workspace as jobs see it: which files belong to it, published once by their content."""
