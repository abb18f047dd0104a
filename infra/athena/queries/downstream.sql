-- downstream: which downstream agents did what: every operation of a chain, by who acted
-- param txn txn: the chain's id
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: actor, chain, target, principal, at, verdict, outcome, actions, text, segment, frame
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
  actor, array_join(chain, ' > ') AS chain, target, principal, "at", verdict, outcome,
  array_join(actions, ' ') AS actions, text, segment, frame
FROM told
WHERE copy = 1 AND txn = :txn AND name IN ('operation.ran', 'operation.refused')
ORDER BY actor, "at", operation_id
