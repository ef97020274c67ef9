"""What a process does with a state root: submissions, locks, cancel, recovery, reaper, gc."""
