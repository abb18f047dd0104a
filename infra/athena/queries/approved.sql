-- approved: was each step approved and logged: every delegation, session and operation, by which rule and whom
-- param txn txn: the chain's id
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: at, step, actor, target, verdict, rules, approval, ask_ids, people, logged
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
  "at",
  name AS step,
  actor,
  target,
  coalesce(verdict, CASE WHEN code IS NULL THEN 'forward' ELSE 'block' END) AS verdict,
  array_join(rules, ' ') AS rules,
  CASE
    WHEN code IS NOT NULL THEN 'refused'
    WHEN cardinality(people) > 0 THEN 'approved'
    WHEN cardinality(ask_ids) > 0 THEN 'asked'
    ELSE 'none required'
  END AS approval,
  array_join(ask_ids, ' ') AS ask_ids,
  array_join(people, ' ') AS people,
  CASE WHEN frame IS NULL THEN uid ELSE concat(coalesce(segment, connection_id), '#', CAST(frame AS varchar)) END AS logged
FROM told
WHERE copy = 1
  AND txn = :txn
  AND name IN ('token.exchanged', 'ticket.issued', 'ticket.refused', 'chain.extended', 'session.requested',
    'session.granted', 'session.refused', 'credential.minted', 'credential.refused', 'operation.ran',
    'operation.refused')
ORDER BY "at", name, uid
