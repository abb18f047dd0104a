# ARNs by template: functions by name, broker (the task's own), execution (what starts it), auditor, query.
output "roles" {
  value = { for role, made in aws_iam_role.this : role => made.arn }
}

output "functions" {
  description = "ARNs of the functions' roles by function"
  value       = { for role in keys(local.functions) : role => aws_iam_role.this[role].arn }
}

output "bucket_key_users" {
  value = [for role in local.uses_bucket_key : aws_iam_role.this[role].arn]
}

output "table_users" {
  value = [for role in local.uses_tables : aws_iam_role.this[role].arn]
}
