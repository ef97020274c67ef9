"""What may happen to a job: pure data and one table."""
