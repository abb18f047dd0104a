-- Asks, Answers and Uses in one table, told apart by `kind`: what an approval is, is a fold over the three.
-- From the tables' streams (items/v1/): `item` is the row's JSON text.
CREATE EXTERNAL TABLE IF NOT EXISTS `approvals` (
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
PARTITIONED BY (`kind` string, `day` string, `hour` string)
ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'
WITH SERDEPROPERTIES ('ignore.malformed.json' = 'FALSE', 'case.insensitive' = 'TRUE')
LOCATION 's3://${BUCKET}/items/v1/'
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
  'projection.kind.type' = 'enum',
  'projection.kind.values' = 'asks,answers,uses',
  'storage.location.template' = 's3://${BUCKET}/items/v1/${kind}/${day}/${hour}/'
);
