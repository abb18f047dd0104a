-- reach: who can reach what: the targets and logins that each identity was granted
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: originator, actor, target, principal, sessions, first_at, last_at, rules
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
  originator, actor, target, principal,
  count(*) AS sessions,
  min("at") AS first_at,
  max("at") AS last_at,
  max_by(array_join(rules, ' '), "at") AS rules
FROM told
WHERE copy = 1 AND name = 'session.granted'
GROUP BY originator, actor, target, principal
ORDER BY target, principal, originator, actor
