terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
      # us-east-1, where IAM's calls are told whatever region they were made from.
      configuration_aliases = [aws.global]
    }
  }
}
