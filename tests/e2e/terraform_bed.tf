# What the tests of the service's modules apply: they, as the root puts them together, beside what other modules make.

terraform {
  required_version = "~> 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}

provider "aws" {
  region                      = "eu-west-1"
  access_key                  = "test"
  secret_key                  = "test"
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  max_retries                 = 2 # else a call that the emulator does not know stalls for minutes
}

provider "aws" {
  alias                       = "global"
  region                      = "us-east-1"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  max_retries                 = 2
}

variable "name" { type = string }
variable "functions" { type = set(string) }
variable "bucket_key" { type = string }
variable "roles" { type = map(string) }
variable "vpc_id" { type = string }
variable "subnet_ids" { type = list(string) }
variable "groups" { type = map(string) }
variable "streams" { type = map(string) }
variable "api_id" { type = string }

module "audit" {
  source     = "./infra/modules/audit"
  name       = var.name
  functions  = var.functions
  bucket     = "${var.name}-recordings"
  bucket_key = var.bucket_key
  protect    = false
}

module "broker" {
  source             = "./infra/modules/broker"
  name               = var.name
  vpc_id             = var.vpc_id
  subnet_ids         = var.subnet_ids
  balancer_group     = var.groups["balancer"]
  broker_group       = var.groups["broker"]
  public_addresses   = true
  ports              = { postgres = { listen = 5432, target = 5432 }, ssh = { listen = 22, target = 2222 } }
  task_role_arn      = var.roles["broker"]
  execution_role_arn = var.roles["execution"]
  log_group          = module.audit.log_groups["broker"]
  image              = "registry.example/broker@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  environment        = { COUNTERSIGN_PREFIX = var.name }
  secrets            = { tls_certificate = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a", tls_key = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:b", ssh_host_key = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:c" }
  protect            = false
}

module "alarms" {
  source               = "./infra/modules/alarms"
  name                 = var.name
  functions            = var.functions
  log_groups           = module.audit.log_groups
  balancer             = module.broker.balancer
  target_groups        = module.broker.target_groups
  cluster              = module.broker.cluster
  service              = module.broker.service
  compaction_workgroup = module.audit.compaction_workgroup
  serving              = true
  deployed             = true
}

module "edge" {
  source            = "./infra/modules/edge"
  providers         = { aws = aws, aws.global = aws.global }
  name              = var.name
  api_id            = var.api_id
  api_stage         = "api"
  streams           = var.streams
  log_groups        = module.audit.log_groups
  target_log_groups = ["/countersign/targets/orders-prod"]
  bucket            = "${var.name}-recordings"
  digest_bucket     = ""
}
