# One page: the four questions' alarms on top, and under them what moves.

locals {
  questions = {
    recording = "Is it recording?"
    deciding  = "Is it deciding?"
    unsealed  = "Is anything unsealed?"
    guarded   = "Does anybody touch what guards it?"
  }
  region = data.aws_region.current.name
  own    = "Countersign/${var.name}"

  answers = [for place, question in ["recording", "deciding", "unsealed", "guarded"] : {
    type = "alarm", x = 6 * place, y = 0, width = 6, height = 6
    properties = {
      title = local.questions[question]
      # A widget shows a hundred at most; the functions' are two for each.
      alarms = [for id, alarm in local.alarms : aws_cloudwatch_metric_alarm.this[id].arn if alarm.question == question]
    }
  }]

  graphs = {
    "Live sessions"  = { stat = "Sum", metrics = [["Countersign", "Sessions", "Service", "broker", "Name", var.name]] }
    "Connections"    = { stat = "Sum", metrics = [for name in ["ConnectionsOpened", "ConnectionsRefused"] : [local.own, name]] }
    "Answers"        = { stat = "Sum", metrics = [for name in ["AnswersGiven", "AnswersRefused", "CardsFailed"] : [local.own, name]] }
    "API"            = { stat = "Sum", metrics = [for name in ["ApiAnswers", "ApiFailures"] : [local.own, name]] }
    "Recording"      = { stat = "Sum", metrics = [for name in ["RecordingsFailed", "RecordingGaps", "EventsNotStored", "ConnectionsNotSealed"] : [local.own, name]] }
    "Sweeps"         = { stat = "Sum", metrics = [for name in ["Sweeps", "SweepsFailed", "SweepsLeft", "BrokersLost"] : [local.own, name]] }
    "Streams' age"   = { stat = "Maximum", metrics = [for name in ["archive_items", "post_cards"] : ["AWS/Lambda", "IteratorAge", "FunctionName", "${var.name}-${name}"]] }
    "Functions, p99" = { stat = "p99", metrics = [for name in ["", "-decide", "-mint", "-sign"] : ["AWS/Lambda", "Duration", "FunctionName", "${var.name}${name}"]] }
  }

  graph_widgets = [for place, title in sort(keys(local.graphs)) : {
    type = "metric", x = 6 * (place % 4), y = 6 + 6 * floor(place / 4), width = 6, height = 6
    properties = {
      title = title, region = local.region, view = "timeSeries", period = 60
      stat  = local.graphs[title].stat, metrics = local.graphs[title].metrics
    }
  }]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({ widgets = concat(local.answers, local.graph_widgets) })
}
