"""A process's hold on a state root: submissions, locks, cancel, recovery, reaper, gc."""
