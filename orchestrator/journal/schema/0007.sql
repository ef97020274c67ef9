-- The host that a job runs on, and that of an instance, by the names of the user's settings; "" for
-- the local one.

ALTER TABLE jobs ADD COLUMN host TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN host TEXT NOT NULL DEFAULT '';
