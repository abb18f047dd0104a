terraform {
  required_version = "~> 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }

  # Where the state is kept is the operator's: `terraform init -backend-config=...`. It names no secret's value.
  backend "s3" {}
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { countersign = local.name }
  }
}

# IAM's calls are told there, whatever region they were made from.
provider "aws" {
  alias  = "global"
  region = "us-east-1"

  default_tags {
    tags = { countersign = local.name }
  }
}
