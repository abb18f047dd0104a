# What is made from the archive and can be made again: results of queries, and the compacted index. No evidence, so no
# lock, and buckets of their own: who may query must not be able to change what others query.

locals {
  made = { queries = "${var.bucket}-queries", index = "${var.bucket}-index" }
}

resource "aws_s3_bucket" "made" {
  for_each = local.made

  bucket        = each.value
  force_destroy = !var.protect
}

resource "aws_s3_bucket_public_access_block" "made" {
  for_each = local.made

  bucket                  = aws_s3_bucket.made[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "made" {
  for_each = local.made

  bucket = aws_s3_bucket.made[each.key].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.bucket_key
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "results" {
  bucket = aws_s3_bucket.made["queries"].id

  rule {
    id     = "results"
    status = "Enabled"

    filter {}

    expiration {
      days = var.results_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

data "aws_iam_policy_document" "tls" {
  for_each = local.made

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = ["arn:aws:s3:::${each.value}", "arn:aws:s3:::${each.value}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "made" {
  for_each = local.made

  bucket = aws_s3_bucket.made[each.key].id
  policy = data.aws_iam_policy_document.tls[each.key].json

  depends_on = [aws_s3_bucket_public_access_block.made]
}
