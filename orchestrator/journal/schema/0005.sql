-- What lists, pages, gc and the reaper ask of a job, so that none of them folds its events.
-- Times are ISO 8601; `begun_at` is when the job first left the queue, `moved_at` when it came into
-- its state. NULL where a damaged row does not tell. A lease is `made` when the create of its
-- instance is known to have been answered.

ALTER TABLE jobs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
ALTER TABLE jobs ADD COLUMN submitted_at TEXT;
ALTER TABLE jobs ADD COLUMN begun_at TEXT;
ALTER TABLE jobs ADD COLUMN moved_at TEXT;
ALTER TABLE jobs ADD COLUMN workspace TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN snapshot TEXT;
ALTER TABLE jobs ADD COLUMN revision TEXT;
ALTER TABLE jobs ADD COLUMN dirty INTEGER;
ALTER TABLE jobs ADD COLUMN message TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN made INTEGER NOT NULL DEFAULT 0;

CREATE TEMP TABLE events AS
SELECT job, seq, body, json_extract(body, '$.type') AS type, json_extract(body, '$.at') AS at
FROM (SELECT job, seq, CAST(body AS TEXT) AS body FROM entries WHERE seq IS NOT NULL)
WHERE json_valid(body);

CREATE INDEX temp.events_in_turn ON events (job, seq);

UPDATE jobs SET (submitted_at, workspace, snapshot, revision, dirty) = (
    SELECT
        at,
        coalesce(json_extract(body, '$.workspace'), ''),
        json_extract(body, '$.snapshot.hash'),
        json_extract(body, '$.snapshot.commit'),
        CASE json_type(body, '$.snapshot.dirty') WHEN 'true' THEN 1 WHEN 'false' THEN 0 END
    FROM temp.events WHERE job = jobs.id AND seq = 1
)
WHERE EXISTS (SELECT 1 FROM temp.events WHERE job = jobs.id AND seq = 1);

UPDATE jobs SET
    attempt = (state <> 'rejected') + (
        SELECT count(*) FROM temp.events WHERE job = jobs.id AND type IN ('retried', 'restarted')
    ),
    begun_at = (
        SELECT at FROM temp.events WHERE job = jobs.id AND type = 'artifacts_reset'
        ORDER BY seq LIMIT 1
    );

UPDATE jobs SET (moved_at, message) = (
    SELECT
        at,
        CASE
            WHEN type IN ('rejected', 'failed', 'cancelled')
            THEN coalesce(substr(json_extract(body, '$.failure.message'), 1, 1000), '')
            WHEN type = 'result_collected' AND json_extract(body, '$.outcome') <> 'passed'
            THEN coalesce(substr(json_extract(body, '$.message'), 1, 1000), '')
            ELSE ''
        END
    FROM temp.events WHERE job = jobs.id ORDER BY seq DESC LIMIT 1
)
WHERE EXISTS (SELECT 1 FROM temp.events WHERE job = jobs.id);

UPDATE leases SET made = EXISTS (
    SELECT 1 FROM temp.events
    WHERE job = leases.job AND type = 'devices_configured'
    AND json_extract(body, '$.instance') = leases.instance
);

DROP TABLE temp.events;
