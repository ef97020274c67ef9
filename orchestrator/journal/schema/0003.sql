-- What is submitted under one key is submitted once: of two that try, one cannot.

ALTER TABLE jobs ADD COLUMN key TEXT;

CREATE UNIQUE INDEX jobs_of_key ON jobs (key, name) WHERE key IS NOT NULL;

-- Lists begin with the newest.
CREATE INDEX jobs_in_turn ON jobs (first_entry);
