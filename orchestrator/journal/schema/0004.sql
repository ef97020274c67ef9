-- Where each job is, and how it ended: who asks for jobs of a state, or a verdict, need not fold all.

ALTER TABLE jobs ADD COLUMN state TEXT NOT NULL DEFAULT 'submitted';
ALTER TABLE jobs ADD COLUMN verdict TEXT;

CREATE TEMP TABLE destinations (event TEXT PRIMARY KEY, state TEXT, verdict TEXT);
INSERT INTO destinations VALUES
    ('submitted', 'submitted', NULL),
    ('rejected', 'rejected', 'rejected'),
    ('artifacts_reset', 'artifacts_reset', NULL),
    ('devices_configured', 'devices_configured', NULL),
    ('instance_ready', 'instance_ready', NULL),
    ('running', 'running', NULL),
    ('result_collected', 'result_collected', NULL),
    ('retried', 'submitted', NULL),
    ('restarted', 'submitted', NULL),
    ('cancel_requested', 'cancelling', NULL),
    ('cancelled', 'cancelled', 'cancelled'),
    ('failed', 'failed', 'infrastructure');

UPDATE jobs SET (state, verdict) = (
    SELECT
        destinations.state,
        -- Of a result the outcome is the verdict.
        coalesce(destinations.verdict, json_extract(CAST(body AS TEXT), '$.outcome'))
    FROM entries JOIN destinations
    ON event = iif(json_valid(CAST(body AS TEXT)), json_extract(CAST(body AS TEXT), '$.type'), NULL)
    WHERE entries.job = jobs.id AND entries.seq IS NOT NULL
    ORDER BY entries.seq DESC LIMIT 1
)
-- One that is damaged stays as it is: who reads the job is told.
WHERE EXISTS (
    SELECT 1 FROM entries JOIN destinations
    ON event = iif(json_valid(CAST(body AS TEXT)), json_extract(CAST(body AS TEXT), '$.type'), NULL)
    WHERE entries.job = jobs.id AND entries.seq IS NOT NULL
);

DROP TABLE destinations;
