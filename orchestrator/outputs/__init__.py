"""What jobs leave for other jobs: made once, named by what it was made from, and reused."""
