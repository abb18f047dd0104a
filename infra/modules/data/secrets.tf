# Where secrets are kept, and none of their values: a value in Terraform would be in its state. Whoever deploys puts them
# (`aws secretsmanager put-secret-value`); targets' credentials, under NAME/targets/, come and go with the targets.

resource "aws_secretsmanager_secret" "this" {
  for_each = toset(var.secrets)

  name                    = "${var.name}/${each.key}"
  recovery_window_in_days = var.protect ? 30 : 0
}
