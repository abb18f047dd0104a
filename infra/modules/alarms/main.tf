# Is it recording, is it deciding, is anything unsealed, and does anybody touch what guards it. What is measured and when
# somebody is told are data, infra/alarms/*.json: docs/alarms.md is written from them, and a test holds every metric
# against the code that makes it. Source: CloudWatch Logs, "Filter pattern syntax"; CloudWatch, "PutMetricAlarm".

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}

locals {
  folder      = "${path.module}/../../alarms"
  log_metrics = jsondecode(file("${local.folder}/log_metrics.json"))
  declared    = { for id, alarm in jsondecode(file("${local.folder}/alarms.json")) : id => merge({ each = "", needs = "" }, alarm) }

  each = {
    "" = { "" = "" }
    functions = { for function in var.functions :
    replace(function, "_", "-") => function == "api" ? var.name : "${var.name}-${function}" }
    target_groups = var.target_groups
  }
  there = { "" = true, serving = var.serving, deployed = var.deployed }

  # One of each that `each` names.
  alarms = merge([for id, alarm in local.declared : {
    for part, value in local.each[alarm.each] : (part == "" ? id : "${id}-${part}") => merge(alarm, {
      title = part == "" ? alarm.title : "${alarm.title}: ${part}"
      dimensions = { for key, text in alarm.dimensions : key =>
        replace(replace(replace(replace(replace(replace(text,
          "{name}", var.name), "{region}", data.aws_region.current.name), "{balancer}", var.balancer),
        "{cluster}", var.cluster), "{service}", var.service), "{each}", value)
      }
    })
  } if local.there[alarm.needs]]...)

  percentile = "^p[0-9]"
}

resource "aws_cloudwatch_log_metric_filter" "this" {
  for_each = local.log_metrics

  name           = each.key
  log_group_name = var.log_groups[each.value.group]
  pattern        = each.value.pattern

  metric_transformation {
    namespace = "Countersign/${var.name}"
    name      = each.key
    value     = try(each.value.value, "1")
  }
}

resource "aws_sns_topic" "alarms" {
  name = "${var.name}-alarms"
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name        = "${var.name}-${each.key}"
  alarm_description = "${each.value.title}. ${each.value.means} ${each.value.do}"

  namespace           = replace(each.value.namespace, "{name}", var.name)
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = can(regex(local.percentile, each.value.statistic)) ? null : each.value.statistic
  extended_statistic  = can(regex(local.percentile, each.value.statistic)) ? each.value.statistic : null
  period              = each.value.period_s
  evaluation_periods  = each.value.periods
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  treat_missing_data  = each.value.missing

  alarm_actions = [aws_sns_topic.alarms.arn]
  ok_actions    = [aws_sns_topic.alarms.arn]
}

# A night without compaction makes long questions slower, and nobody would see it.
resource "aws_cloudwatch_event_rule" "compaction" {
  name        = "${var.name}-compaction-failed"
  description = "The nightly compaction did not end well"

  event_pattern = jsonencode({
    source        = ["aws.athena"]
    "detail-type" = ["Athena Query State Change"]
    detail        = { workgroupName = [var.compaction_workgroup], currentState = ["FAILED", "CANCELLED"] }
  })
}

resource "aws_cloudwatch_event_target" "compaction" {
  rule      = aws_cloudwatch_event_rule.compaction.name
  target_id = "alarms"
  arn       = aws_sns_topic.alarms.arn
}

data "aws_iam_policy_document" "topic" {
  statement {
    sid       = "AlarmsOfThisAccountTell"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }

  statement {
    sid       = "CompactionTells"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.compaction.arn]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.topic.json
}
