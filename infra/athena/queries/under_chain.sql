-- under_chain: everything that happened under a chain, in order
-- param txn txn: the chain's id
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: at, name, code, actor, target, principal, session_id, connection_id, operation_id, verdict, outcome, text, uid
WITH told AS (
  SELECT *,
    row_number() OVER (
      PARTITION BY uid
      ORDER BY CASE WHEN outcome = 'unknown' THEN 1 ELSE 0 END, CASE WHEN segment IS NULL THEN 1 ELSE 0 END, number
    ) AS copy
  FROM events
  WHERE day BETWEEN :since AND :until
)
SELECT
  "at", name, code, actor, target, principal, session_id, connection_id, operation_id, verdict, outcome, text, uid
FROM told
WHERE copy = 1 AND txn = :txn
ORDER BY "at", uid
