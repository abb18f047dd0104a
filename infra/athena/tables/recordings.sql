-- The frames of one session: session_id is injected, so that every query must name it, and reads nothing else.
-- The first line of each segment is its header (kind 'segment'); a line of kind 'tombstone' fences a dead broker.
CREATE EXTERNAL TABLE IF NOT EXISTS `recordings` (
  `v` bigint,
  `sid` string,
  `con` string,
  `seq` bigint,
  `t` string,
  `proto` string,
  `dir` string,
  `kind` string,
  `text` string,
  `meta` string,
  `txn` string,
  `actor` string,
  `sub` string,
  `number` bigint,
  `prev_sha256` string
)
PARTITIONED BY (`session_id` string)
ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'
WITH SERDEPROPERTIES ('ignore.malformed.json' = 'FALSE', 'case.insensitive' = 'TRUE')
LOCATION 's3://${BUCKET}/rec/v1/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.session_id.type' = 'injected',
  'storage.location.template' = 's3://${BUCKET}/rec/v1/${session_id}/'
);
