# Where the broker runs. By default a small VPC of its own: two public subnets, whose tasks take nothing but what the
# balancer forwards, and reach S3 and DynamoDB by gateway endpoints, which cost nothing. Interface endpoints, with which
# no task needs the internet, are an option with a price (about $7.30 a month each per zone, before traffic).

data "aws_availability_zones" "available" {
  state = "available"
}

data "aws_region" "current" {}

locals {
  own   = var.vpc_id == ""
  zones = local.own ? slice(data.aws_availability_zones.available.names, 0, 2) : []
  vpc   = local.own ? aws_vpc.own[0].id : var.vpc_id

  # What the broker calls besides S3 and DynamoDB.
  interfaces = ["kms", "lambda", "logs", "ecr.api", "ecr.dkr", "sts", "secretsmanager"]
}

resource "aws_vpc" "own" {
  count = local.own ? 1 : 0

  cidr_block           = var.cidr
  enable_dns_hostnames = true
  enable_dns_support   = true

  tags = { Name = var.name }
}

# Whatever uses the VPC's default group by mistake reaches nothing.
resource "aws_default_security_group" "closed" {
  count = local.own ? 1 : 0

  vpc_id = aws_vpc.own[0].id
}

resource "aws_internet_gateway" "own" {
  count = local.own ? 1 : 0

  vpc_id = aws_vpc.own[0].id

  tags = { Name = var.name }
}

resource "aws_subnet" "public" {
  count = length(local.zones)

  vpc_id            = aws_vpc.own[0].id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.cidr, 4, count.index)

  tags = { Name = "${var.name}-${local.zones[count.index]}" }
}

resource "aws_route_table" "public" {
  count = local.own ? 1 : 0

  vpc_id = aws_vpc.own[0].id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.own[0].id
  }

  tags = { Name = var.name }
}

resource "aws_route_table_association" "public" {
  count = length(local.zones)

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = local.own ? toset(["s3", "dynamodb"]) : toset([])

  vpc_id            = aws_vpc.own[0].id
  service_name      = "com.amazonaws.${data.aws_region.current.name}.${each.key}"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.public[0].id]

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_security_group" "interface" {
  count = var.interface_endpoints ? 1 : 0

  name        = "${var.name}-endpoints"
  description = "What the broker calls of AWS"
  vpc_id      = local.vpc

  tags = { Name = "${var.name}-endpoints" }
}

resource "aws_vpc_security_group_ingress_rule" "interface" {
  count = var.interface_endpoints ? 1 : 0

  security_group_id            = aws_security_group.interface[0].id
  description                  = "From the broker"
  referenced_security_group_id = aws_security_group.broker.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_endpoint" "interface" {
  for_each = var.interface_endpoints ? toset(local.interfaces) : toset([])

  vpc_id              = local.vpc
  service_name        = "com.amazonaws.${data.aws_region.current.name}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = local.own ? aws_subnet.public[*].id : var.subnet_ids
  security_group_ids  = [aws_security_group.interface[0].id]
  private_dns_enabled = true

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "Clients of the broker"
  vpc_id      = local.vpc

  tags = { Name = "${var.name}-balancer" }
}

resource "aws_security_group" "broker" {
  name        = "${var.name}-broker"
  description = "The broker's tasks"
  vpc_id      = local.vpc

  tags = { Name = "${var.name}-broker" }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = { for pair in setproduct(keys(var.ports), var.client_cidrs) : "${pair[0]} ${pair[1]}" => pair }

  security_group_id = aws_security_group.balancer.id
  description       = "${each.value[0]} clients"
  cidr_ipv4         = each.value[1]
  ip_protocol       = "tcp"
  from_port         = var.ports[each.value[0]].listen
  to_port           = var.ports[each.value[0]].listen
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  for_each = var.ports

  security_group_id            = aws_security_group.balancer.id
  description                  = "${each.key} to the broker"
  referenced_security_group_id = aws_security_group.broker.id
  ip_protocol                  = "tcp"
  from_port                    = each.value.target
  to_port                      = each.value.target
}

resource "aws_vpc_security_group_ingress_rule" "broker" {
  for_each = var.ports

  security_group_id            = aws_security_group.broker.id
  description                  = "${each.key} from the balancer, and from nobody else"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = each.value.target
  to_port                      = each.value.target
}

# AWS itself, and the targets: where these are is the configuration bundle's to say, and it changes without a deploy.
resource "aws_vpc_security_group_egress_rule" "broker" {
  security_group_id = aws_security_group.broker.id
  description       = "To AWS and to the targets"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
