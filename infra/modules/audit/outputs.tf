output "log_groups" {
  description = "Function to its log group's name; `broker` to the broker's"
  value       = merge({ for function, group in aws_cloudwatch_log_group.function : function => group.name }, { broker = aws_cloudwatch_log_group.broker.name })
}

output "event_bus" {
  description = "COUNTERSIGN_EVENT_BUS"
  value       = aws_cloudwatch_event_bus.this.name
}

output "workgroup" {
  description = "COUNTERSIGN_WORKGROUP of whoever asks"
  value       = aws_athena_workgroup.this["queries"].name
}

output "compaction_workgroup" {
  value = aws_athena_workgroup.this["compaction"].name
}

output "database" {
  description = "COUNTERSIGN_DATABASE of whoever asks"
  value       = aws_glue_catalog_database.this.name
}

output "trail_bucket" {
  description = "Where `countersign reconcile --cloudtrail` finds its files; empty where the trail is another's"
  value       = var.trail ? local.trail_bucket : ""
}

output "compaction_role" {
  description = "ARN of the role that compacts: it uses the bucket's key"
  value       = aws_iam_role.compaction.arn
}
