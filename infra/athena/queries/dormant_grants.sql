-- dormant_grants: sessions that were granted and never used: access that nobody needed
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: granted_at, originator, actor, target, principal, session_id, expires_at, rules, txn
WITH kept AS (
  SELECT item, row_number() OVER (PARTITION BY key ORDER BY "at" DESC, seq DESC) AS newest
  FROM sessions
  WHERE day BETWEEN :since AND :until AND change <> 'remove'
),
used AS (
  SELECT DISTINCT session_id
  FROM events
  WHERE day BETWEEN :since AND :until AND name = 'connection.opened'
)
SELECT
  json_extract_scalar(item, '$.grant.not_before') AS granted_at,
  concat(json_extract_scalar(item, '$.originator.issuer'), '#', json_extract_scalar(item, '$.originator.subject'))
    AS originator,
  concat(json_extract_scalar(item, '$.actor.issuer'), '#', json_extract_scalar(item, '$.actor.subject')) AS actor,
  json_extract_scalar(item, '$.grant.target') AS target,
  json_extract_scalar(item, '$.grant.principal') AS principal,
  json_extract_scalar(item, '$.id') AS session_id,
  json_extract_scalar(item, '$.grant.expires_at') AS expires_at,
  json_format(json_extract(item, '$.grant.rules')) AS rules,
  json_extract_scalar(item, '$.txn') AS txn
FROM kept
WHERE newest = 1
  AND json_extract_scalar(item, '$.grant.id') IS NOT NULL
  AND json_extract_scalar(item, '$.id') NOT IN (SELECT session_id FROM used WHERE session_id IS NOT NULL)
ORDER BY granted_at, session_id
