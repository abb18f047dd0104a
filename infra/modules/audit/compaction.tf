# One day's events into the index, each night. Started once for a day, whatever Scheduler repeats: the request's token is
# the day's. Source: EventBridge Scheduler, "Using universal targets", "Adding context attributes"; Athena API,
# StartQueryExecution (ClientRequestToken: 32 characters at least).

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}

locals {
  # By 02:00 every line of the day before yesterday is in its hour (infra/athena/compaction/events.sql).
  day = "CAST(date_add('day', -2, from_iso8601_date(substr('<aws.scheduler.scheduled-time>', 1, 10))) AS varchar)"

  compact = trimspace(replace(replace(file("${local.athena}/compaction/events.sql"), "/(?m)^--.*\\n/", ""), ":day", local.day))

  request = jsonencode({
    QueryString           = local.compact
    QueryExecutionContext = { Database = aws_glue_catalog_database.this.name }
    WorkGroup             = aws_athena_workgroup.this["compaction"].name
    ClientRequestToken    = "countersign-compact-<aws.scheduler.scheduled-time>"
  })
}

resource "aws_iam_role" "compaction" {
  name = "${var.name}-compaction"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "SchedulerOfThisAccount"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "scheduler.amazonaws.com" }
      # Another account's schedule must not use it: the confused deputy.
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "compaction" {
  name = "compaction"
  role = aws_iam_role.compaction.id

  policy = templatefile("${path.module}/../../policies/compaction.json", {
    REGION     = data.aws_region.current.name
    ACCOUNT    = data.aws_caller_identity.current.account_id
    PREFIX     = var.name
    BUCKET     = var.bucket
    BUCKET_KEY = var.bucket_key
    DATABASE   = local.database
  })
}

resource "aws_scheduler_schedule" "compaction" {
  name                = "${var.name}-compaction"
  schedule_expression = "cron(0 2 * * ? *)"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:aws:scheduler:::aws-sdk:athena:startQueryExecution"
    role_arn = aws_iam_role.compaction.arn
    # Scheduler looks for its attribute in the text as it stands, and jsonencode writes angle brackets as escapes.
    input = replace(replace(local.request, "\\u003c", "<"), "\\u003e", ">")

    retry_policy {
      maximum_retry_attempts       = 3
      maximum_event_age_in_seconds = 3600
    }
  }
}
