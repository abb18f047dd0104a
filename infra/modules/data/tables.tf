# The tables, as `tables.json` declares them: the same file that `countersign dev` makes its own from. Authority is read by
# key; an index holds keys and nothing else. What is evidence is streamed to `archive_items`, old and new image.

locals {
  tables   = jsondecode(file("${path.module}/../../tables.json"))
  streamed = [for table, declared in local.tables : table if try(declared.stream, false)]
}

resource "aws_dynamodb_table" "this" {
  for_each = local.tables

  name         = "${var.name}-${each.key}"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = each.value.key[0][0]
  range_key    = try(each.value.key[1][0], null)

  stream_enabled   = contains(local.streamed, each.key)
  stream_view_type = contains(local.streamed, each.key) ? "NEW_AND_OLD_IMAGES" : null

  deletion_protection_enabled = var.protect

  dynamic "attribute" {
    for_each = { for pair in distinct(concat(each.value.key, values(try(each.value.indexes, {}))...)) : pair[0] => pair[1] }

    content {
      name = attribute.key
      type = attribute.value
    }
  }

  dynamic "global_secondary_index" {
    for_each = try(each.value.indexes, {})

    content {
      name            = global_secondary_index.key
      hash_key        = global_secondary_index.value[0][0]
      range_key       = global_secondary_index.value[1][0]
      projection_type = "KEYS_ONLY"
    }
  }

  dynamic "ttl" {
    for_each = try(each.value.expires, false) ? [1] : []

    content {
      enabled        = true
      attribute_name = "expires"
    }
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.table_key
  }
}
