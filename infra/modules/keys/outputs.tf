output "keys" {
  description = "Purpose to key ARN"
  value       = { for purpose, key in aws_kms_key.signing : purpose => key.arn }
}

output "bucket_key" {
  value = aws_kms_key.data["bucket"].arn
}

output "table_key" {
  value = aws_kms_key.data["tables"].arn
}

output "kept_key" {
  value = aws_kms_key.data["kept"].arn
}
