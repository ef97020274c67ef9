"""Asks git about a tree, without running anything that the tree's repository configures."""
