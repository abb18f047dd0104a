# Tables and questions as `infra/athena` says them: the DDL is read here, so that it is said once. It has one form, which
# a test keeps: columns a line each, properties a line each. Source: AWS Glue, "Table", "StorageDescriptor"; Athena,
# "Partition projection".

locals {
  athena   = "${path.module}/../../athena"
  database = replace(var.name, "-", "_")
  places   = { BUCKET = var.bucket, INDEX_BUCKET = aws_s3_bucket.made["index"].bucket }

  ddl = { for file in fileset("${local.athena}/tables", "*.sql") : trimsuffix(file, ".sql") => file("${local.athena}/tables/${file}") }

  # A place of ours is in capitals; what is in small letters (`$${day}`) is Athena's own.
  filled = { for table, text in local.ddl : table => replace(replace(text, "$${BUCKET}", local.places.BUCKET), "$${INDEX_BUCKET}", local.places.INDEX_BUCKET) }

  tables = { for table, text in local.filled : table => {
    columns    = [for found in regexall("(?m)^  `([a-z0-9_]+)` ([a-z<>]+),?$", text) : { name = found[0], type = found[1] }]
    partitions = [for found in regexall("`([a-z_]+)` ([a-z]+)", regex("PARTITIONED BY \\(([^)]*)\\)", text)[0]) : { name = found[0], type = found[1] }]
    location   = regex("(?m)^LOCATION '([^']+)'$", text)[0]
    parquet    = strcontains(text, "STORED AS PARQUET")
    properties = { for found in regexall("(?m)^  '([^']+)' = '([^']*)',?$", text) : found[0] => found[1] }
    serde      = { for found in regexall("'([^']+)' = '([^']*)'", try(regex("SERDEPROPERTIES \\(([^)]*)\\)", text)[0], "")) : found[0] => found[1] }
  } }

  questions = { for file in fileset("${local.athena}/queries", "*.sql") : trimsuffix(file, ".sql") => file("${local.athena}/queries/${file}") }
}

resource "aws_glue_catalog_database" "this" {
  name        = local.database
  description = "The archive of ${var.name}"
}

resource "aws_glue_catalog_table" "this" {
  for_each = local.tables

  database_name = aws_glue_catalog_database.this.name
  name          = each.key
  table_type    = "EXTERNAL_TABLE"
  parameters    = merge({ EXTERNAL = "TRUE" }, each.value.properties)

  dynamic "partition_keys" {
    for_each = each.value.partitions

    content {
      name = partition_keys.value.name
      type = partition_keys.value.type
    }
  }

  storage_descriptor {
    location      = each.value.location
    input_format  = each.value.parquet ? "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat" : "org.apache.hadoop.mapred.TextInputFormat"
    output_format = each.value.parquet ? "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat" : "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"

    ser_de_info {
      serialization_library = each.value.parquet ? "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe" : "org.openx.data.jsonserde.JsonSerDe"
      parameters            = each.value.parquet ? { "serialization.format" = "1" } : each.value.serde
    }

    dynamic "columns" {
      for_each = each.value.columns

      content {
        name = columns.value.name
        type = columns.value.type
      }
    }
  }
}

locals {
  workgroups = {
    queries    = { name = var.name, about = "Questions of auditors", gib = var.most_scanned_gib }
    compaction = { name = "${var.name}-compaction", about = "One day's events into the index", gib = 10 * var.most_scanned_gib }
  }
}

# What a query may read, and where its result lies, is the workgroup's to say and not the caller's.
resource "aws_athena_workgroup" "this" {
  for_each = local.workgroups

  name          = each.value.name
  description   = each.value.about
  force_destroy = !var.protect
  tags          = { purpose = each.key }

  configuration {
    enforce_workgroup_configuration    = true
    publish_cloudwatch_metrics_enabled = true
    bytes_scanned_cutoff_per_query     = each.value.gib * 1024 * 1024 * 1024

    engine_version {
      selected_engine_version = "Athena engine version 3"
    }

    result_configuration {
      output_location = "s3://${aws_s3_bucket.made["queries"].bucket}/${each.key}/"

      encryption_configuration {
        encryption_option = "SSE_KMS"
        kms_key_arn       = var.bucket_key
      }
    }
  }
}

# For the console: `countersign query` has the same files itself. A parameter's place is a question mark there.
resource "aws_athena_named_query" "this" {
  for_each = local.questions

  name        = each.key
  description = regex("^-- [a-z_]+: (.*)", each.value)[0]
  database    = aws_glue_catalog_database.this.name
  workgroup   = aws_athena_workgroup.this["queries"].id
  query       = trimspace(replace(replace(each.value, "/(?m)^--.*\\n/", ""), "/([ (]):[a-z_]+/", "$1?"))
}
