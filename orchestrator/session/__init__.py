"""A process's hold on a state root: locks, cancel, recovery, reaper, garbage collection."""
