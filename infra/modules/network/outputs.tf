output "vpc_id" {
  value = local.vpc
}

output "subnet_ids" {
  value = local.own ? aws_subnet.public[*].id : var.subnet_ids
}

output "balancer_group" {
  value = aws_security_group.balancer.id
}

output "broker_group" {
  value = aws_security_group.broker.id
}

output "public_addresses" {
  description = "Whether tasks need an address of their own to reach AWS"
  value       = local.own && !var.interface_endpoints
}
