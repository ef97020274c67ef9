-- A warm guest is made before its job. Until then its lease has the job '' and the `session` of the
-- process that made it; `attempt` is the number of the job's attempt that claimed it, 0 for a guest
-- that was made for its attempt.

ALTER TABLE leases ADD COLUMN session TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;
