-- An event's number is unique in its job: of two processes that would move one job, one cannot.
-- The key, beside the owner, makes the nonces of result files; `open_journal` draws it.

ALTER TABLE entries ADD COLUMN seq INTEGER;

UPDATE entries SET seq = json_extract(CAST(body AS TEXT), '$.seq');

CREATE UNIQUE INDEX entries_in_turn ON entries (job, seq) WHERE seq IS NOT NULL;
