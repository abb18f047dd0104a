# What calls the functions besides the API and their schedules, which are Chalice's. Applied after `chalice deploy`, since
# a function must be there to be called. Sources: AWS Lambda, "Using Lambda with DynamoDB"; CloudWatch Logs, "Using
# subscription filters"; EventBridge, "Using dead-letter queues".

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  region    = data.aws_region.current.name
  functions = "arn:aws:lambda:${local.region}:${local.account}:function:${var.name}"
  failed    = toset(["post-cards", "archive-items", "watch-cloud"])
}

# What could not be delivered: for two weeks, the most that a queue keeps, and an alarm says that something is there.
resource "aws_sqs_queue" "failed" {
  for_each = local.failed

  name                      = "${var.name}-${each.key}-failed"
  message_retention_seconds = 14 * 24 * 3600
  sqs_managed_sse_enabled   = true
}

# A card waits for nobody: small batches at once. A record is handled on its own and fails on its own, so that what is
# tried again is a function that could not run; an Ask lives a quarter of an hour, and `reconcile` posts what was missed.
resource "aws_lambda_event_source_mapping" "cards" {
  for_each = toset(["asks", "answers"])

  function_name                  = "${local.functions}-post_cards"
  event_source_arn               = var.streams[each.key]
  starting_position              = "LATEST"
  batch_size                     = 10
  maximum_retry_attempts         = 3
  maximum_record_age_in_seconds  = 900
  bisect_batch_on_function_error = true

  filter_criteria {
    filter {
      pattern = jsonencode({ eventName = ["INSERT"] })
    }
  }

  destination_config {
    on_failure {
      destination_arn = aws_sqs_queue.failed["post-cards"].arn
    }
  }
}

# Nothing may be missed: from the stream's beginning, tried again until four hours before the stream forgets, which is
# how long an operator then has. A batch is one object: some seconds' worth costs a fraction of one each.
resource "aws_lambda_event_source_mapping" "archive" {
  for_each = var.streams

  function_name                      = "${local.functions}-archive_items"
  event_source_arn                   = each.value
  starting_position                  = "TRIM_HORIZON"
  batch_size                         = 100
  maximum_batching_window_in_seconds = 5
  maximum_retry_attempts             = -1
  maximum_record_age_in_seconds      = 20 * 3600
  bisect_batch_on_function_error     = true

  destination_config {
    on_failure {
      destination_arn = aws_sqs_queue.failed["archive-items"].arn
    }
  }
}

# Lines with an event, of every group but that of `events` itself, which would call itself for ever.
locals {
  told = { for part, group in var.log_groups : part => group if part != "events" }
}

resource "aws_lambda_permission" "told" {
  for_each = local.told

  statement_id   = "logs-${each.key}"
  function_name  = "${local.functions}-events"
  action         = "lambda:InvokeFunction"
  principal      = "logs.amazonaws.com"
  source_arn     = "arn:aws:logs:${local.region}:${local.account}:log-group:${each.value}:*"
  source_account = local.account
}

resource "aws_cloudwatch_log_subscription_filter" "told" {
  for_each = local.told

  name            = "${var.name}-events"
  log_group_name  = each.value
  filter_pattern  = "{ $.audit.v >= 1 }"
  destination_arn = "${local.functions}-events"

  depends_on = [aws_lambda_permission.told]
}

resource "aws_lambda_permission" "targets" {
  for_each = var.target_log_groups

  statement_id   = replace(trimprefix(each.key, "/"), "/", "-")
  function_name  = "${local.functions}-watch_targets"
  action         = "lambda:InvokeFunction"
  principal      = "logs.amazonaws.com"
  source_arn     = "arn:aws:logs:${local.region}:${local.account}:log-group:${each.key}:*"
  source_account = local.account
}

# Every line: what a refused login looks like is said once, in services.target_log.
resource "aws_cloudwatch_log_subscription_filter" "targets" {
  for_each = var.target_log_groups

  name            = "${var.name}-watch-targets"
  log_group_name  = each.key
  filter_pattern  = ""
  destination_arn = "${local.functions}-watch_targets"

  depends_on = [aws_lambda_permission.targets]
}
