-- break_glass: what rested on a rule for emergencies, by the beginning of its id
-- param rule text default break-glass: how such rules' ids begin
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: at, name, originator, actor, target, principal, rules, people, outcome, text, txn
WITH told AS (
  SELECT *,
    row_number() OVER (
      PARTITION BY uid
      ORDER BY CASE WHEN outcome = 'unknown' THEN 1 ELSE 0 END, CASE WHEN segment IS NULL THEN 1 ELSE 0 END, number
    ) AS copy
  FROM events
  WHERE day BETWEEN :since AND :until
),
ruled AS (
  SELECT DISTINCT uid
  FROM told
  CROSS JOIN UNNEST(rules) AS named (rule)
  WHERE copy = 1 AND starts_with(named.rule, :rule)
)
SELECT
  "at", name, originator, actor, target, principal, array_join(rules, ' ') AS rules, array_join(people, ' ') AS people,
  outcome, text, txn
FROM told
WHERE copy = 1 AND code IS NULL AND uid IN (SELECT uid FROM ruled)
ORDER BY "at", uid
