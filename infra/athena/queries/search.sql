-- search: operations whose text has a word in it
-- param text text: what to look for, in any case
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: at, originator, actor, target, principal, verdict, outcome, text, segment, frame, session_id, txn
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
  "at", originator, actor, target, principal, verdict, outcome, text, segment, frame, session_id, txn
FROM told
WHERE copy = 1 AND name IN ('operation.ran', 'operation.refused') AND strpos(lower(text), lower(:text)) > 0
ORDER BY "at", uid
