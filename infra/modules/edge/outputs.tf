output "queues" {
  description = "What could not be delivered to whom: the queue's name"
  value       = { for part, queue in aws_sqs_queue.failed : part => queue.name }
}

output "web_acl" {
  value = aws_wafv2_web_acl.api.name
}
