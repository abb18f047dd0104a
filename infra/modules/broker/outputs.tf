output "host" {
  description = "What clients connect to"
  value       = var.host == "" ? aws_lb.broker.dns_name : var.host
}

output "balancer_name" {
  description = "DNS name of the balancer, for a record of your own"
  value       = aws_lb.broker.dns_name
}

output "repository" {
  description = "Where the image is pushed"
  value       = aws_ecr_repository.broker.repository_url
}

output "cluster" {
  description = "COUNTERSIGN_BROKER_CLUSTER"
  value       = aws_ecs_cluster.this.name
}

output "service" {
  value = aws_ecs_service.broker.name
}

output "balancer" {
  description = "As CloudWatch names it"
  value       = aws_lb.broker.arn_suffix
}

output "target_groups" {
  description = "Protocol to the target group as CloudWatch names it"
  value       = { for protocol, group in aws_lb_target_group.broker : protocol => group.arn_suffix }
}
