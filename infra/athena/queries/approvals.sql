-- approvals: approvals by approver, and how fast they came
-- param since day default -30: the first day
-- param until day default 0: the last day
-- columns: person, approved, refused, fastest_s, median_s, slowest_s, last_at
WITH asked AS (
  SELECT
    json_extract_scalar(item, '$.id') AS ask_id,
    from_iso8601_timestamp(json_extract_scalar(item, '$.created_at')) AS asked_at,
    row_number() OVER (PARTITION BY key ORDER BY seq) AS copy
  FROM approvals
  WHERE kind = 'asks' AND change = 'insert' AND day BETWEEN :since AND :until
),
answered AS (
  SELECT
    json_extract_scalar(item, '$.ask_id') AS ask_id,
    json_extract_scalar(item, '$.person') AS person,
    json_extract_scalar(item, '$.approved') AS approved,
    json_extract_scalar(item, '$.answered_at') AS answered_at,
    row_number() OVER (PARTITION BY key ORDER BY seq) AS copy
  FROM approvals
  WHERE kind = 'answers' AND change = 'insert' AND day BETWEEN :since AND :until
)
SELECT
  answered.person AS person,
  count_if(answered.approved = 'true') AS approved,
  count_if(answered.approved = 'false') AS refused,
  min(date_diff('second', asked.asked_at, from_iso8601_timestamp(answered.answered_at))) AS fastest_s,
  approx_percentile(date_diff('second', asked.asked_at, from_iso8601_timestamp(answered.answered_at)), 0.5) AS median_s,
  max(date_diff('second', asked.asked_at, from_iso8601_timestamp(answered.answered_at))) AS slowest_s,
  max(answered.answered_at) AS last_at
FROM answered
LEFT JOIN asked ON asked.ask_id = answered.ask_id AND asked.copy = 1
WHERE answered.copy = 1
GROUP BY answered.person
ORDER BY approved DESC, person
