-- compact_events: one whole day into Parquet, each uid once. By a schedule, at 02:00 UTC, for the day before yesterday:
-- by then every late line is in its hour. Run it for a day once, or empty s3://INDEX_BUCKET/events_compacted/DAY/ first.
-- param day day
INSERT INTO events_compacted
WITH told AS (
  SELECT *,
    row_number() OVER (
      PARTITION BY uid
      ORDER BY CASE WHEN outcome = 'unknown' THEN 1 ELSE 0 END, CASE WHEN segment IS NULL THEN 1 ELSE 0 END, number
    ) AS copy
  FROM events
  WHERE day = :day
)
SELECT
  v, uid, name, "at", time_ms, writer, number, category_uid, class_uid, activity_id, type_uid, severity_id,
  status_id, code, subject, txn, originator, chain, hop, assurance, actor, session_id, connection_id,
  operation_id, ask_ids, people, target, principal, protocol, peer, actions, text, masks, tables,
  reads_masked, verdict, rules, policy_digest, configuration_serial, outcome, tag, sqlstate, row_count,
  byte_count, duration_ms, frame, segment, why,
  hour, day
FROM told
WHERE copy = 1
ORDER BY target, "at"
