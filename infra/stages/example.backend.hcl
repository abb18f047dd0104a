# Copy to STAGE.backend.hcl: where Terraform keeps what it made. It has no secret's value in it, and every name.
bucket       = "example-terraform-state"
key          = "countersign/prod.tfstate"
region       = "eu-west-1"
encrypt      = true
use_lockfile = true
