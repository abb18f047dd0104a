-- table: statements that name a table
-- param table text: schema.table, or its last part
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: at, originator, actor, target, principal, tables, actions, verdict, outcome, row_count, text, segment, frame, txn
WITH told AS (
  SELECT *,
    row_number() OVER (
      PARTITION BY uid
      ORDER BY CASE WHEN outcome = 'unknown' THEN 1 ELSE 0 END, CASE WHEN segment IS NULL THEN 1 ELSE 0 END, number
    ) AS copy
  FROM events
  WHERE day BETWEEN :since AND :until
),
touching AS (
  SELECT DISTINCT uid
  FROM told
  CROSS JOIN UNNEST(tables) AS named (touched)
  WHERE copy = 1 AND (lower(named.touched) = lower(:table) OR split_part(lower(named.touched), '.', 2) = lower(:table))
)
SELECT
  "at", originator, actor, target, principal, array_join(tables, ' ') AS tables, array_join(actions, ' ') AS actions,
  verdict, outcome, row_count, text, segment, frame, txn
FROM told
WHERE copy = 1 AND uid IN (SELECT uid FROM touching)
ORDER BY "at", uid
