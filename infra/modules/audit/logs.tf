# Every log group, made before whoever writes it, so that none is kept for ever because a function's first line made it.
# Their names are not free: `events` believes /aws/lambda/ and /countersign/broker alone (services.event_lines).

locals {
  groups = { for function in var.functions : function => function == "api" ? "/aws/lambda/${var.name}" : "/aws/lambda/${var.name}-${function}" }
}

resource "aws_cloudwatch_log_group" "function" {
  for_each = local.groups

  name              = each.value
  retention_in_days = var.retention_days
}

resource "aws_cloudwatch_log_group" "broker" {
  name              = "/countersign/broker/${var.name}"
  retention_in_days = var.retention_days
}

# Whom `events` tells besides the bucket; what listens there is the operator's.
resource "aws_cloudwatch_event_bus" "this" {
  name = var.name
}
