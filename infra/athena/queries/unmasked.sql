-- unmasked: who read columns that a mask rule names without the mask
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: at, originator, actor, target, principal, tables, rules, people, row_count, text, segment, frame, txn
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
  "at", originator, actor, target, principal, array_join(tables, ' ') AS tables, array_join(rules, ' ') AS rules,
  array_join(people, ' ') AS people, row_count, text, segment, frame, txn
FROM told
WHERE copy = 1 AND name = 'operation.ran' AND reads_masked AND verdict <> 'mask'
ORDER BY "at", uid
