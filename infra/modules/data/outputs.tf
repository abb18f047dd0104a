output "tables" {
  description = "Table to its ARN"
  value       = { for table, made in aws_dynamodb_table.this : table => made.arn }
}

output "streams" {
  description = "Table to its stream's ARN"
  value       = { for table in local.streamed : table => aws_dynamodb_table.this[table].stream_arn }
}

output "bucket" {
  description = "Name of the locked bucket"
  value       = aws_s3_bucket.recordings.bucket
}

output "secrets" {
  description = "Secret to its ARN"
  value       = { for secret, made in aws_secretsmanager_secret.this : secret => made.arn }
}
