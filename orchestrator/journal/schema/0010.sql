-- The number of a job's run, counted from 1, which is easy to say aloud; never used twice: meta has
-- the last one under `runs`. The subject of the commit and the branch that were checked out; the job
-- that did not pass, if this one was skipped or cancelled for that.

ALTER TABLE jobs ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN branch TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN because TEXT NOT NULL DEFAULT '';

CREATE TEMP TABLE numbers AS
SELECT run, row_number() OVER (ORDER BY min(first_entry)) AS number FROM jobs GROUP BY run;

CREATE UNIQUE INDEX temp.numbers_of_run ON numbers (run);

UPDATE jobs SET number = (SELECT number FROM temp.numbers WHERE numbers.run = jobs.run);

DROP TABLE temp.numbers;

CREATE INDEX jobs_of_number ON jobs (number);

INSERT OR REPLACE INTO meta (key, value)
SELECT 'runs', CAST(coalesce(max(number), 0) AS TEXT) FROM jobs;

UPDATE jobs SET because = coalesce((
    SELECT CASE
        WHEN json_valid(text) THEN CASE
            WHEN json_extract(text, '$.type') IN ('skipped', 'cancel_requested')
            THEN json_extract(text, '$.because')
        END
    END AS why
    FROM (SELECT CAST(body AS TEXT) AS text, seq FROM entries WHERE job = jobs.id)
    WHERE seq IS NOT NULL AND why IS NOT NULL ORDER BY seq DESC LIMIT 1
), '')
WHERE state IN ('skipped', 'cancelled', 'cancelling');
