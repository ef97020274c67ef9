-- An event's number is unique in its job: of two processes that would move one job, one cannot.
-- The key, beside the owner, makes the nonces of result files; `open_journal` draws it.

ALTER TABLE entries ADD COLUMN seq INTEGER;

-- One that is damaged has no number: who reads the job is told.
UPDATE entries SET seq = iif(
    json_valid(CAST(body AS TEXT)) AND json_type(CAST(body AS TEXT), '$.seq') = 'integer',
    json_extract(CAST(body AS TEXT), '$.seq'),
    NULL
);

CREATE UNIQUE INDEX entries_in_turn ON entries (job, seq) WHERE seq IS NOT NULL;
