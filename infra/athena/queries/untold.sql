-- untold: writers whose numbers have holes: events that were told and are in no object
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: writer, first_at, last_at, told, highest, missing
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
  writer,
  min("at") AS first_at,
  max("at") AS last_at,
  count(DISTINCT number) AS told,
  max(number) AS highest,
  max(number) - min(number) + 1 - count(DISTINCT number) AS missing
FROM told
WHERE copy = 1
GROUP BY writer
HAVING max(number) - min(number) + 1 > count(DISTINCT number)
ORDER BY missing DESC, writer
