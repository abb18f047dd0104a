# TCP as it comes: TLS ends in the broker, which must see who presents which key. The client's address travels in the
# PROXY protocol's header, which the broker requires here, and which nobody but the balancer can send: the task's group
# admits no one else. Source: Elastic Load Balancing, "Target groups for your Network Load Balancers", "Update the TCP
# idle timeout for your Network Load Balancer listener".

locals {
  # Which attribute of a target group takes how long a connection to a task that leaves may go on: all that a drain may
  # take, and what is left until the task is gone.
  deregistration_s = var.drain_s + 30
}

resource "aws_lb" "broker" {
  name               = substr("${var.name}-broker", 0, 32)
  load_balancer_type = "network"
  internal           = var.internal
  subnets            = var.subnet_ids
  security_groups    = [var.balancer_group]

  # A zone that has lost its task answers through the other's.
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = var.protect
}

resource "aws_lb_target_group" "broker" {
  for_each = var.ports

  name        = substr("${var.name}-${each.key}", 0, 32)
  vpc_id      = var.vpc_id
  target_type = "ip"
  protocol    = "TCP"
  port        = each.value.target

  proxy_protocol_v2      = true
  preserve_client_ip     = true
  deregistration_delay   = local.deregistration_s
  connection_termination = false # a session ends in its own protocol, not by a reset

  health_check {
    protocol            = "TCP" # the broker closes its listeners when it drains
    port                = "traffic-port"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "broker" {
  for_each = var.ports

  load_balancer_arn        = aws_lb.broker.arn
  protocol                 = "TCP"
  port                     = each.value.listen
  tcp_idle_timeout_seconds = var.idle_s

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.broker[each.key].arn
  }
}

resource "aws_route53_record" "broker" {
  count = var.zone_id == "" ? 0 : 1

  zone_id = var.zone_id
  name    = var.host
  type    = "A"

  alias {
    name                   = aws_lb.broker.dns_name
    zone_id                = aws_lb.broker.zone_id
    evaluate_target_health = true
  }
}
