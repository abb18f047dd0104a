# A role for each function, for the broker's task and its start, and for those who audit. What a role may is a template,
# `.chalice/policies/*.json` and `infra/policies/*.json`: the very files that `countersign dev` and the tests run under.
# docs/permissions.md says of every statement why it is there. `compaction` is the module `audit`'s.

data "aws_caller_identity" "current" {}

locals {
  folder    = "${path.module}/../../.."
  functions = { for file in fileset("${local.folder}/.chalice/policies", "*.json") : trimsuffix(file, ".json") => "${local.folder}/.chalice/policies/${file}" }
  tasks     = { for role in ["broker", "execution"] : role => "${local.folder}/infra/policies/${role}.json" }
  people    = { for role in ["auditor", "query"] : role => "${local.folder}/infra/policies/${role}.json" if length(var.auditors) > 0 }
  templates = merge(local.functions, local.tasks, local.people)

  # Every template names the keys that its role uses; the key's own policy lets in those and no other.
  uses_bucket_key = [for role, file in local.templates : role if strcontains(file(file), "$${BUCKET_KEY}")]
  uses_tables     = [for role, file in local.templates : role if strcontains(file(file), ":table/$${PREFIX}-")]
}

data "aws_iam_policy_document" "functions" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "tasks" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    # ECS asks for whoever set it up: for this account's own tasks, and no other's (the confused deputy).
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

data "aws_iam_policy_document" "people" {
  count = length(var.auditors) > 0 ? 1 : 0

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = var.auditors
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = local.templates

  name        = "${var.name}-${each.key}"
  description = "Countersign: ${each.key}"
  assume_role_policy = (
    contains(keys(local.functions), each.key) ? data.aws_iam_policy_document.functions.json :
    contains(keys(local.tasks), each.key) ? data.aws_iam_policy_document.tasks.json :
    data.aws_iam_policy_document.people[0].json
  )
}

# Whatever else is attached to these roles is undone at the next apply: their rights are what the templates say.
resource "aws_iam_role_policies_exclusive" "this" {
  for_each = local.templates

  role_name    = aws_iam_role.this[each.key].name
  policy_names = concat([aws_iam_role_policy.this[each.key].name], each.key == "mint" && length(var.target_secrets) > 0 ? [aws_iam_role_policy.target_secrets[0].name] : [])
}

resource "aws_iam_role_policy_attachments_exclusive" "this" {
  for_each = local.templates

  role_name   = aws_iam_role.this[each.key].name
  policy_arns = []
}

resource "aws_iam_role_policy" "this" {
  for_each = local.templates

  name   = each.key
  role   = aws_iam_role.this[each.key].name
  policy = templatefile(each.value, var.places)
}

# Targets' credentials that are kept outside of `NAME/targets/`, where the operator had them before.
resource "aws_iam_role_policy" "target_secrets" {
  count = length(var.target_secrets) > 0 ? 1 : 0

  name = "target-secrets"
  role = aws_iam_role.this["mint"].name
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Sid = "ReadOtherTargetCredentials", Effect = "Allow", Action = ["secretsmanager:GetSecretValue"], Resource = var.target_secrets }]
  })
}
