-- The test cases of a job's reports, in the order of the reports: what is to be asked of many jobs,
-- such as how often a test failed. A job's event has a summary of them.

CREATE TABLE tests (
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    suite TEXT NOT NULL,
    name TEXT NOT NULL,
    file TEXT NOT NULL,
    outcome TEXT NOT NULL,
    secs REAL NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

-- Version 5 did not write yet why a job was skipped.
UPDATE jobs SET message = coalesce((
    SELECT CASE
        WHEN json_valid(text) THEN substr(json_extract(text, '$.failure.message'), 1, 1000)
    END
    FROM (SELECT CAST(body AS TEXT) AS text, seq FROM entries WHERE job = jobs.id)
    WHERE seq IS NOT NULL ORDER BY seq DESC LIMIT 1
), '')
WHERE state = 'skipped' AND message = '';
