"""A job from its submission to its end: submission, backlog, queue, task, handle."""
