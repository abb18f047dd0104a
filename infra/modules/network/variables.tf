variable "name" {
  description = "Begins every resource's name"
  type        = string
}

variable "vpc_id" {
  description = "An existing VPC; empty makes one"
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the existing VPC, in at least two zones"
  type        = list(string)
}

variable "cidr" {
  description = "Addresses of a VPC that is made"
  type        = string
}

variable "ports" {
  description = "Protocol to the ports: where the balancer listens, and where the broker does (never below 1024: no root)"
  type        = map(object({ listen = number, target = number }))
}

variable "client_cidrs" {
  description = "Who may reach the balancer"
  type        = list(string)
}

variable "interface_endpoints" {
  description = "Reach KMS, Lambda and the rest without the internet"
  type        = bool
}
