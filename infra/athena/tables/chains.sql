-- Every hop that was put, whole: `item` is its JSON text.
-- From the table's stream (items/v1/). The last change of a key is what the table holds.
CREATE EXTERNAL TABLE IF NOT EXISTS `chains` (
  `v` bigint,
  `change` string,
  `at` string,
  `seq` string,
  `key` string,
  `item` string,
  `sha256` string,
  `attributes` string,
  `before_sha256` string,
  `fault` string
)
PARTITIONED BY (`day` string, `hour` string)
ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'
WITH SERDEPROPERTIES ('ignore.malformed.json' = 'FALSE', 'case.insensitive' = 'TRUE')
LOCATION 's3://${BUCKET}/items/v1/chains/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.day.type' = 'date',
  'projection.day.format' = 'yyyy-MM-dd',
  'projection.day.range' = '2026-01-01,NOW',
  'projection.day.interval' = '1',
  'projection.day.interval.unit' = 'DAYS',
  'projection.hour.type' = 'integer',
  'projection.hour.range' = '0,23',
  'projection.hour.digits' = '2',
  'storage.location.template' = 's3://${BUCKET}/items/v1/chains/${day}/${hour}/'
);
