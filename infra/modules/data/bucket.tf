# The locked bucket: every object is of a kind that nobody replaces or deletes, under a lock from the moment that it is
# there. Its policy and lifecycle are `infra/bucket/*.json`, the very files that the tests run under. The policy comes
# last: from then on nobody but whom BREAK_GLASS names changes how the bucket is set.

data "aws_caller_identity" "current" {}

resource "aws_s3_bucket" "recordings" {
  bucket              = var.bucket
  object_lock_enabled = true # turns versioning on, and neither can be turned off again
  force_destroy       = !var.protect
}

resource "aws_s3_bucket_versioning" "recordings" {
  bucket = aws_s3_bucket.recordings.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "recordings" {
  bucket = aws_s3_bucket.recordings.id

  rule {
    default_retention {
      mode = var.lock_mode
      days = var.lock_days
    }
  }

  depends_on = [aws_s3_bucket_versioning.recordings]
}

resource "aws_s3_bucket_server_side_encryption_configuration" "recordings" {
  bucket = aws_s3_bucket.recordings.id

  rule {
    bucket_key_enabled = true # one call of KMS for many objects

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.bucket_key
    }
  }
}

resource "aws_s3_bucket_public_access_block" "recordings" {
  bucket = aws_s3_bucket.recordings.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "recordings" {
  bucket = aws_s3_bucket.recordings.id

  rule {
    object_ownership = "BucketOwnerEnforced" # no object has an ACL
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "recordings" {
  bucket = aws_s3_bucket.recordings.id

  dynamic "rule" {
    for_each = jsondecode(file("${path.module}/../../bucket/lifecycle.json")).Rules

    content {
      id     = rule.value.ID
      status = rule.value.Status

      filter {
        prefix = try(rule.value.Filter.Prefix, null)

        dynamic "tag" {
          for_each = try([rule.value.Filter.Tag], [])

          content {
            key   = tag.value.Key
            value = tag.value.Value
          }
        }
      }

      dynamic "expiration" {
        for_each = try([rule.value.Expiration.Days], [])

        content {
          days = expiration.value
        }
      }

      dynamic "noncurrent_version_expiration" {
        for_each = try([rule.value.NoncurrentVersionExpiration.NoncurrentDays], [])

        content {
          noncurrent_days = noncurrent_version_expiration.value
        }
      }

      dynamic "abort_incomplete_multipart_upload" {
        for_each = try([rule.value.AbortIncompleteMultipartUpload.DaysAfterInitiation], [])

        content {
          days_after_initiation = abort_incomplete_multipart_upload.value
        }
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.recordings]
}

resource "aws_s3_bucket_policy" "recordings" {
  bucket = aws_s3_bucket.recordings.id

  policy = templatefile("${path.module}/../../bucket/policy.json", {
    BUCKET          = var.bucket
    BUCKET_KEY      = var.bucket_key
    LOCK_DAYS       = var.lock_days
    PRINCIPALS      = "arn:aws:iam::${data.aws_caller_identity.current.account_id}:role/"
    FUNCTION_PREFIX = "${var.name}-"
    BROKER          = var.broker_role
    BREAK_GLASS     = var.break_glass
  })

  depends_on = [
    aws_s3_bucket_lifecycle_configuration.recordings,
    aws_s3_bucket_object_lock_configuration.recordings,
    aws_s3_bucket_ownership_controls.recordings,
    aws_s3_bucket_public_access_block.recordings,
    aws_s3_bucket_server_side_encryption_configuration.recordings,
  ]
}
