"""What does happen to a job: trio tasks that await incus."""
