-- denied_then_allowed: what was refused and soon after allowed, to the same identity on the same target
-- param minutes number default 60: how soon
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: actor, target, denied_at, denied_code, denied_text, allowed_at, allowed_name, allowed_rules, allowed_text
WITH told AS (
  SELECT *,
    row_number() OVER (
      PARTITION BY uid
      ORDER BY CASE WHEN outcome = 'unknown' THEN 1 ELSE 0 END, CASE WHEN segment IS NULL THEN 1 ELSE 0 END, number
    ) AS copy
  FROM events
  WHERE day BETWEEN :since AND :until
),
denied AS (
  SELECT * FROM told
  WHERE copy = 1 AND code IS NOT NULL AND name IN ('operation.refused', 'session.refused')
),
allowed AS (
  SELECT * FROM told
  WHERE copy = 1 AND code IS NULL AND name IN ('operation.ran', 'session.granted')
)
SELECT
  denied.actor AS actor, denied.target AS target, denied."at" AS denied_at, denied.code AS denied_code,
  denied.text AS denied_text, allowed."at" AS allowed_at, allowed.name AS allowed_name,
  array_join(allowed.rules, ' ') AS allowed_rules, allowed.text AS allowed_text
FROM denied
JOIN allowed
  ON allowed.actor = denied.actor
  AND allowed.target = denied.target
  AND split_part(allowed.name, '.', 1) = split_part(denied.name, '.', 1)
WHERE allowed.time_ms > denied.time_ms
  AND allowed.time_ms - denied.time_ms <= 60000 * :minutes
  AND (allowed.text IS NULL OR denied.text = allowed.text OR arrays_overlap(denied.actions, allowed.actions))
ORDER BY denied_at, allowed_at, allowed_name
