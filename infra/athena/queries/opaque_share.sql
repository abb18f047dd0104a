-- opaque_share: how much of what ran could not be read: shells, and what is opaque, by target and identity
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: target, actor, operations, opaque, share_percent
WITH told AS (
  SELECT *,
    row_number() OVER (
      PARTITION BY uid
      ORDER BY CASE WHEN outcome = 'unknown' THEN 1 ELSE 0 END, CASE WHEN segment IS NULL THEN 1 ELSE 0 END, number
    ) AS copy
  FROM events
  WHERE day BETWEEN :since AND :until
),
ran AS (
  SELECT
    target, actor,
    CASE
      WHEN contains(actions, 'sql:opaque') OR contains(actions, 'ssh:opaque') OR contains(actions, 'ssh:shell') THEN 1
      ELSE 0
    END AS is_opaque
  FROM told
  WHERE copy = 1 AND name = 'operation.ran'
)
SELECT
  target, actor,
  count(*) AS operations,
  sum(is_opaque) AS opaque,
  round(100.0 * sum(is_opaque) / count(*), 1) AS share_percent
FROM ran
GROUP BY target, actor
ORDER BY share_percent DESC, target, actor
