-- initiator: who initiated it: the first hop, with the people behind the run
-- param txn txn: the chain's id
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: txn, at, originator, name, accountable, evidence, assurance, token_id, expires_at
WITH hops AS (
  SELECT item, row_number() OVER (PARTITION BY key ORDER BY seq) AS copy
  FROM chains
  WHERE day BETWEEN :since AND :until
    AND change = 'insert'
    AND json_extract_scalar(item, '$.txn') = :txn
    AND json_extract_scalar(item, '$.kind') = 'origin'
)
SELECT
  json_extract_scalar(item, '$.txn') AS txn,
  json_extract_scalar(item, '$.issued_at') AS "at",
  concat(json_extract_scalar(item, '$.originator.issuer'), '#', json_extract_scalar(item, '$.originator.subject'))
    AS originator,
  json_extract_scalar(item, '$.originator.name') AS name,
  json_format(json_extract(item, '$.accountable')) AS accountable,
  json_extract_scalar(item, '$.evidence.kind') AS evidence,
  json_extract_scalar(item, '$.evidence.assurance') AS assurance,
  json_extract_scalar(item, '$.evidence.token_id') AS token_id,
  json_extract_scalar(item, '$.expires_at') AS expires_at
FROM hops
WHERE copy = 1
ORDER BY "at"
