output "topic" {
  description = "Where every alarm is told; subscribe a pager here"
  value       = aws_sns_topic.alarms.arn
}

output "dashboard" {
  value = aws_cloudwatch_dashboard.this.dashboard_name
}
