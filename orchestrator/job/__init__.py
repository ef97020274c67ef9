"""A job from its first event to its end: submission, backlog, queue, task, driver, handle."""
