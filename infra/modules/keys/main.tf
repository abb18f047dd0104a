# A KMS key for each purpose. Who may use it is said twice: in the role's own policy, and here, in the key's, which names
# the roles. An administrator of the account manages keys, and signs and decrypts with none (who may change a key's policy
# can give themselves more: CloudTrail tells `watch_cloud`, and so an auditor). Disabling a key, or scheduling its
# deletion, is denied to all but whom `enders` names: a key that is gone takes the proof of all that it signed.

data "aws_caller_identity" "current" {}

data "aws_region" "current" {}

locals {
  root = "arn:aws:iam::${data.aws_caller_identity.current.account_id}:root"

  # What an account's own policies may allow on a key: everything but using it and ending it.
  manage = [
    "kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias", "kms:DescribeKey", "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus", "kms:GetPublicKey", "kms:ListAliases", "kms:ListGrants", "kms:ListKeyPolicies",
    "kms:ListKeyRotations", "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:RevokeGrant", "kms:TagResource",
    "kms:UntagResource", "kms:UpdateKeyDescription", "kms:EnableKey", "kms:EnableKeyRotation", "kms:CancelKeyDeletion",
  ]
  end = ["kms:DisableKey", "kms:ScheduleKeyDeletion", "kms:DisableKeyRotation"]
  use = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*"]

  # Purpose to what each of the symmetric keys does for whom; through: the service that alone may ask for it.
  data = {
    bucket = { through = "s3", allows = [{ sid = "UseAsOwnPolicySays", who = var.bucket_users, what = ["kms:Decrypt", "kms:GenerateDataKey"] }] }
    tables = { through = "dynamodb", allows = [{ sid = "ReachTables", who = var.table_users, what = concat(local.use, ["kms:DescribeKey"]) }] }
    kept = { through = "", allows = [
      { sid = "Seal", who = var.sealers, what = ["kms:GenerateDataKey"] },
      { sid = "Open", who = var.openers, what = ["kms:Decrypt"] },
    ] }
  }
}

# What every key's policy says.
data "aws_iam_policy_document" "every" {
  statement {
    sid       = "Manage"
    actions   = local.manage
    resources = ["*"] # in a key's policy: this key

    principals {
      type        = "AWS"
      identifiers = [local.root]
    }
  }

  dynamic "statement" {
    for_each = length(var.enders) > 0 ? [var.enders] : []

    content {
      sid       = "End"
      actions   = local.end
      resources = ["*"]

      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }

  statement {
    sid       = "NobodyElseEnds"
    effect    = "Deny"
    actions   = local.end
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    dynamic "condition" {
      for_each = length(var.enders) > 0 ? [var.enders] : []

      content {
        test     = "ArnNotEquals"
        variable = "aws:PrincipalArn"
        values   = condition.value
      }
    }
  }
}

data "aws_iam_policy_document" "signing" {
  for_each = var.signers

  source_policy_documents = [data.aws_iam_policy_document.every.json]

  statement {
    sid       = "SignAsItsOwner"
    actions   = ["kms:Sign"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = each.value
    }
  }

  # Whoever verifies reads the public half, by the account's own policies.
  statement {
    sid       = "NobodyElseSigns"
    effect    = "Deny"
    actions   = ["kms:Sign", "kms:CreateGrant"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "ArnNotEquals"
      variable = "aws:PrincipalArn"
      values   = each.value
    }
  }
}

resource "aws_kms_key" "signing" {
  for_each = var.signers

  description              = "${var.name} ${each.key}"
  customer_master_key_spec = "ECC_NIST_P256"
  key_usage                = "SIGN_VERIFY"
  deletion_window_in_days  = 30 # the longest that KMS has: time to notice
  policy                   = data.aws_iam_policy_document.signing[each.key].json
}

resource "aws_kms_alias" "signing" {
  for_each = var.signers

  name          = "alias/${var.name}-${each.key}"
  target_key_id = aws_kms_key.signing[each.key].key_id
}

data "aws_iam_policy_document" "data" {
  for_each = local.data

  source_policy_documents = [data.aws_iam_policy_document.every.json]

  dynamic "statement" {
    for_each = each.value.allows

    content {
      sid       = statement.value.sid
      actions   = statement.value.what
      resources = ["*"]

      principals {
        type        = "AWS"
        identifiers = statement.value.who
      }

      dynamic "condition" {
        for_each = each.value.through == "" ? [] : [each.value.through]

        content {
          test     = "StringEquals"
          variable = "kms:ViaService"
          values   = ["${condition.value}.${data.aws_region.current.name}.amazonaws.com"]
        }
      }
    }
  }

  # A table's encryption lasts by a grant to DynamoDB, which whoever makes the table makes for it.
  dynamic "statement" {
    for_each = each.key == "tables" ? [1] : []

    content {
      sid       = "MakeTables"
      actions   = concat(local.use, ["kms:DescribeKey", "kms:CreateGrant"])
      resources = ["*"]

      principals {
        type        = "AWS"
        identifiers = [local.root]
      }

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["dynamodb.${data.aws_region.current.name}.amazonaws.com"]
      }
    }
  }
}

resource "aws_kms_key" "data" {
  for_each = local.data

  description             = "${var.name} ${each.key}"
  enable_key_rotation     = true # once a year; what was encrypted before stays readable
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.data[each.key].json
}

resource "aws_kms_alias" "data" {
  for_each = local.data

  name          = "alias/${var.name}-${each.key}"
  target_key_id = aws_kms_key.data[each.key].key_id
}
