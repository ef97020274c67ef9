-- What a job was run with, as a hash: of two jobs with one identity that ended in different ways the
-- job is flaky. NULL for a job without a result. Python adds those of older jobs.

ALTER TABLE jobs ADD COLUMN identity TEXT;

CREATE INDEX jobs_of_identity ON jobs (identity, verdict) WHERE identity IS NOT NULL;
CREATE INDEX jobs_of_name ON jobs (name, workspace, first_entry);
