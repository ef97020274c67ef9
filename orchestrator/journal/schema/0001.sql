-- The first journal. `entries` is the truth; `jobs` and `leases` are kept from it, in the same
-- transaction, so that a list need not fold every event.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    job TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE INDEX entries_of_job ON entries (job, id);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    name TEXT NOT NULL,
    first_entry INTEGER NOT NULL,
    ended INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX jobs_of_run ON jobs (run, first_entry);
CREATE INDEX jobs_unfinished ON jobs (first_entry) WHERE ended = 0;

CREATE TABLE leases (
    instance TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    deadline TEXT NOT NULL,
    kept INTEGER NOT NULL DEFAULT 0,
    ended INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX leases_open ON leases (opened_at) WHERE ended = 0;
