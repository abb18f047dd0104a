# One stage of Countersign, but for what `chalice deploy` makes: functions, API and schedules. Names are known beforehand
# (countersign-STAGE-...), so that nothing here waits for a function but what calls one (`functions_deployed`).

data "aws_caller_identity" "current" {}

# Behind an assumed role's session: the role, which is what policies name.
data "aws_iam_session_context" "current" {
  arn = data.aws_caller_identity.current.arn
}

locals {
  name     = "countersign-${var.stage}" # Chalice's own APP-STAGE, so that function names are known
  account  = data.aws_caller_identity.current.account_id
  deployer = data.aws_iam_session_context.current.issuer_arn
  bucket   = "${local.name}-${local.account}"

  activators  = length(var.activators) > 0 ? var.activators : [local.deployer]
  break_glass = var.break_glass_role == "" ? local.deployer : var.break_glass_role
  enders      = compact([var.break_glass_role, var.protect ? "" : local.deployer])

  # An unprivileged user in a container binds no port below 1024, so the broker's own ssh port is another.
  ports = merge(
    { postgres = { listen = 5432, target = 5432 } },
    var.ssh ? { ssh = { listen = 22, target = 2222 } } : {},
  )

  # Whose key signs what, said again beside the policies' templates: a template that is widened alone widens nothing.
  signers = {
    token      = ["sign"]
    ssh-user   = ["sign"]
    answer     = ["decide"]
    ssh-target = ["mint"]
    record     = ["broker"]
    sweep      = ["sweep"]
    signoff    = ["sign_off"]
    digest     = ["digest"]
    copy       = ["vouch_copy"]
  }

  # The places of the policies' templates.
  places = merge({
    ACCOUNT         = local.account
    REGION          = var.region
    PREFIX          = local.name
    FUNCTION_PREFIX = "${local.name}-"
    BUCKET          = local.bucket
    DIGEST_BUCKET   = var.digest_bucket == "" ? local.bucket : var.digest_bucket
    DATABASE        = replace(local.name, "-", "_")
    BUCKET_KEY      = module.keys.bucket_key
    KEPT_KEY        = module.keys.kept_key
  }, { for purpose, key in module.keys.keys : "${upper(replace(purpose, "-", "_"))}_KEY" => key })

  secrets = concat(
    ["slack/signing-secret", "slack/bot-token", "broker/tls-certificate", "broker/tls-key"],
    var.ssh ? ["broker/ssh-host-key"] : [],
  )
}

module "network" {
  source = "./modules/network"

  name                = local.name
  vpc_id              = var.vpc_id
  subnet_ids          = var.subnet_ids
  cidr                = var.cidr
  ports               = local.ports
  client_cidrs        = var.client_cidrs
  interface_endpoints = var.interface_endpoints
}

module "roles" {
  source = "./modules/roles"

  name           = local.name
  places         = local.places
  auditors       = var.auditors
  target_secrets = var.target_secrets
}

module "keys" {
  source = "./modules/keys"

  name = local.name
  signers = merge(
    { for purpose, roles in local.signers : purpose => [for role in roles : module.roles.roles[role]] },
    { activation = local.activators },
  )
  bucket_users = concat(module.roles.bucket_key_users, local.activators, [module.audit.compaction_role])
  table_users  = concat(module.roles.table_users, local.activators)
  sealers      = [module.roles.roles["sign"]]
  openers      = [module.roles.roles["open_token"]]
  enders       = local.enders
}

module "data" {
  source = "./modules/data"

  name        = local.name
  bucket      = local.bucket
  bucket_key  = module.keys.bucket_key
  table_key   = module.keys.table_key
  lock_mode   = var.lock_mode
  lock_days   = var.lock_days
  broker_role = module.roles.roles["broker"]
  break_glass = local.break_glass
  secrets     = local.secrets
  protect     = var.protect
}

module "audit" {
  source = "./modules/audit"

  name       = local.name
  functions  = keys(module.roles.functions)
  bucket     = local.bucket
  bucket_key = module.keys.bucket_key
  protect    = var.protect
}

module "broker" {
  source = "./modules/broker"

  name               = local.name
  vpc_id             = module.network.vpc_id
  subnet_ids         = module.network.subnet_ids
  balancer_group     = module.network.balancer_group
  broker_group       = module.network.broker_group
  public_addresses   = module.network.public_addresses
  ports              = local.ports
  task_role_arn      = module.roles.roles["broker"]
  execution_role_arn = module.roles.roles["execution"]
  log_group          = module.audit.log_groups["broker"]
  image              = var.broker_image
  architecture       = var.broker_architecture
  host               = var.broker_host
  protect            = var.protect

  environment = local.stores

  secrets = {
    tls_certificate = module.data.secrets["broker/tls-certificate"]
    tls_key         = module.data.secrets["broker/tls-key"]
    ssh_host_key    = var.ssh ? module.data.secrets["broker/ssh-host-key"] : ""
  }
}

module "alarms" {
  source = "./modules/alarms"

  name                 = local.name
  functions            = keys(module.roles.functions)
  log_groups           = module.audit.log_groups
  balancer             = module.broker.balancer
  target_groups        = module.broker.target_groups
  cluster              = module.broker.cluster
  service              = module.broker.service
  compaction_workgroup = module.audit.compaction_workgroup
  serving              = var.broker_image != ""
  deployed             = var.functions_deployed
  emails               = var.alarm_emails
}

# What calls the functions: they must be there first.
module "edge" {
  source    = "./modules/edge"
  count     = var.functions_deployed ? 1 : 0
  providers = { aws = aws, aws.global = aws.global }

  name              = local.name
  api_id            = var.api_id
  api_stage         = var.api_stage
  streams           = module.data.streams
  log_groups        = module.audit.log_groups
  target_log_groups = var.target_log_groups
  bucket            = module.data.bucket
  digest_bucket     = var.digest_bucket
}
