-- identity: everything that an identity ever did or had done below it
-- param identity text: issuer#subject
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: at, name, code, actor, originator, chain, txn, target, principal, verdict, outcome, text, uid
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
  "at", name, code, actor, originator, array_join(chain, ' > ') AS chain, txn, target, principal, verdict, outcome, text, uid
FROM told
WHERE copy = 1 AND (actor = :identity OR originator = :identity OR contains(chain, :identity))
ORDER BY "at", uid
