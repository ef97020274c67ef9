"""What git says of a tree, without running anything that the tree's repository configures."""
