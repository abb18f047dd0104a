# What the next step needs (`python -m infra.deploy` reads it), and what a person may want to know. No secret.

locals {
  # Where state lives: chalicelib/settings.py and broker/settings.py.
  stores = {
    COUNTERSIGN_PREFIX          = local.name
    COUNTERSIGN_BUCKET          = module.data.bucket
    COUNTERSIGN_BUCKET_KEY      = module.keys.bucket_key
    COUNTERSIGN_LOCK_DAYS       = tostring(var.lock_days)
    COUNTERSIGN_FUNCTION_PREFIX = "${local.name}-"
  }
}

output "name" {
  value = local.name
}

output "region" {
  value = var.region
}

output "bucket" {
  value = module.data.bucket
}

output "lock_mode" {
  value = var.lock_mode
}

output "digest_bucket" {
  value = var.digest_bucket
}

output "public_url" {
  description = "The API's own origin; empty: API Gateway's"
  value       = trimsuffix(var.public_url, "/")
}

output "approval_url" {
  value = trimsuffix(var.approval_url, "/")
}

output "functions" {
  description = "For each function its role; for all of them their environment, but for the API's own addresses"

  value = {
    roles = module.roles.functions
    environment = merge(local.stores, {
      COUNTERSIGN_STAGE                = var.stage
      COUNTERSIGN_DIGEST_BUCKET        = var.digest_bucket
      COUNTERSIGN_BROKER_HOST          = module.broker.host
      COUNTERSIGN_BROKER_POSTGRES_PORT = tostring(local.ports["postgres"].listen)
      COUNTERSIGN_BROKER_SSH_PORT      = tostring(try(local.ports["ssh"].listen, 0))
      COUNTERSIGN_BROKER_SSH_HOST_KEY  = var.ssh ? var.broker_ssh_host_key : ""
      COUNTERSIGN_BROKER_CA_PEM        = var.broker_ca_pem
      COUNTERSIGN_BROKER_CLUSTER       = module.broker.cluster
      COUNTERSIGN_EVENT_BUS            = module.audit.event_bus
      COUNTERSIGN_SLACK_CHANNEL        = var.slack_channel
      COUNTERSIGN_SLACK_SIGNING_SECRET = "${local.name}/slack/signing-secret"
      COUNTERSIGN_SLACK_BOT_TOKEN      = "${local.name}/slack/bot-token"
    })
  }
}

output "broker" {
  description = "Where clients reach the broker"

  value = {
    host          = module.broker.host
    postgres_port = local.ports["postgres"].listen
    ssh_port      = try(local.ports["ssh"].listen, 0)
    ca_pem        = var.broker_ca_pem
  }
}

output "broker_repository" {
  description = "Where the broker's image is pushed"
  value       = module.broker.repository
}

output "secrets" {
  description = "Secret to its ARN: where whoever deploys puts the values"
  value       = module.data.secrets
}

output "keys" {
  description = "Purpose to the ARN of its key"
  value       = module.keys.keys
}

output "tables" {
  description = "Table to its ARN"
  value       = module.data.tables
}

output "streams" {
  description = "Table to its stream's ARN"
  value       = module.data.streams
}

output "people" {
  description = "ARNs of the roles that auditors become"
  value       = { for role in ["auditor", "query"] : role => module.roles.roles[role] if contains(keys(module.roles.roles), role) }
}
