# What AWS tells of us, to `watch_cloud`: the rules of infra/events, on the account's default bus, where CloudTrail's
# records arrive. docs/around_us.md says what each is for.

locals {
  events = "${path.module}/../../events"
  places = {
    PREFIX = var.name
    BUCKET = var.bucket
    # Where there is none its place still needs a name: one that no bucket can have.
    DIGEST_BUCKET   = var.digest_bucket == "" ? "-" : var.digest_bucket
    FUNCTION_PREFIX = "${var.name}-"
  }

  # `$$` is one `$` in these files, as Python's templates have it; written without blanks, since a pattern has 2,048
  # characters at most.
  rules = { for file in fileset(local.events, "*.json") : trimsuffix(file, ".json") =>
    jsonencode(jsondecode(replace(templatefile("${local.events}/${file}", local.places), "$$or", "$or")))
  }

  home = local.region == "us-east-1"
}

resource "aws_cloudwatch_event_rule" "cloud" {
  for_each = local.rules

  name          = "${var.name}-${each.key}"
  description   = "To watch_cloud: infra/events/${each.key}.json"
  event_pattern = each.value
}

resource "aws_lambda_permission" "cloud" {
  for_each = local.rules

  statement_id  = "rule-${each.key}"
  function_name = "${local.functions}-watch_cloud"
  action        = "lambda:InvokeFunction"
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.cloud[each.key].arn
}

resource "aws_cloudwatch_event_target" "cloud" {
  for_each = local.rules

  rule      = aws_cloudwatch_event_rule.cloud[each.key].name
  target_id = "watch-cloud"
  arn       = "${local.functions}-watch_cloud"

  dead_letter_config {
    arn = aws_sqs_queue.failed["watch-cloud"].arn
  }

  depends_on = [aws_lambda_permission.cloud]
}

data "aws_iam_policy_document" "dead_letters" {
  statement {
    sid       = "RulesOfOursPutDeadLetters"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.failed["watch-cloud"].arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [for rule in aws_cloudwatch_event_rule.cloud : rule.arn]
    }
  }
}

resource "aws_sqs_queue_policy" "dead_letters" {
  queue_url = aws_sqs_queue.failed["watch-cloud"].id
  policy    = data.aws_iam_policy_document.dead_letters.json
}

# IAM tells in us-east-1 alone: from there to this region's default bus, where the rule above waits for it.

resource "aws_cloudwatch_event_rule" "roles" {
  provider = aws.global
  count    = local.home ? 0 : 1

  name          = "${var.name}-roles"
  description   = "IAM's calls, home to ${local.region}"
  event_pattern = local.rules["roles"]
}

resource "aws_iam_role" "forward" {
  count = local.home ? 0 : 1

  name = "${var.name}-forward-events"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "EventsOfThisAccount"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "events.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "forward" {
  count = local.home ? 0 : 1

  name   = "forward"
  role   = aws_iam_role.forward[0].id
  policy = templatefile("${path.module}/../../policies/forward_events.json", { REGION = local.region, ACCOUNT = local.account })
}

resource "aws_cloudwatch_event_target" "roles" {
  provider = aws.global
  count    = local.home ? 0 : 1

  rule      = aws_cloudwatch_event_rule.roles[0].name
  target_id = "home"
  arn       = "arn:aws:events:${local.region}:${local.account}:event-bus/default"
  role_arn  = aws_iam_role.forward[0].arn
}
