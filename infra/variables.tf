# What whoever deploys says of a stage, in stages/STAGE.tfvars. What has a default may stay away. The last three are the
# glue's to say (`make deploy`), not a person's.

variable "region" {
  description = "Where everything runs"
  type        = string
}

variable "stage" {
  description = "Of the deployment: every name begins with countersign-STAGE"
  type        = string

  validation {
    # The longest name of ours is a bucket's: countersign-STAGE-ACCOUNT-queries, of 63 characters.
    condition     = can(regex("^[a-z][a-z0-9]{0,15}$", var.stage))
    error_message = "A stage is 1 to 16 lower-case letters and digits, a letter first."
  }
}

variable "lock_mode" {
  description = "GOVERNANCE: whom the account lets may shorten a lock. COMPLIANCE: nobody may, nor AWS, until it is over"
  type        = string
  default     = "GOVERNANCE"

  validation {
    condition     = contains(["GOVERNANCE", "COMPLIANCE"], var.lock_mode)
    error_message = "GOVERNANCE or COMPLIANCE."
  }
}

variable "lock_days" {
  description = "How long everything that is recorded is locked at least"
  type        = number
  default     = 365

  validation {
    # infra/bucket/policy.json refuses a lock past ten years: it could be nobody's to end.
    condition     = var.lock_days >= 1 && var.lock_days <= 3650 && floor(var.lock_days) == var.lock_days
    error_message = "Whole days, from 1 to 3650."
  }
}

variable "protect" {
  description = "Whether what holds evidence is protected from deletion. False for a stage that is to be destroyed"
  type        = bool
  default     = true
}

variable "break_glass_role" {
  description = "ARN of the role that may change how the bucket is set, and disable or delete keys. Empty: who applies may change the bucket, and nobody ends a key. Needed where a COMPLIANCE lock is protected"
  type        = string
  default     = ""

  validation {
    # Nobody ends that lock, not AWS either: whoever deploys every day must not be the one who changes how it is set.
    condition     = var.break_glass_role != "" || !var.protect || var.lock_mode != "COMPLIANCE"
    error_message = "With lock_mode COMPLIANCE a protected stage needs a break_glass_role of its own."
  }
}

variable "activators" {
  description = "ARNs of roles or users that sign which configuration is active. Empty: who applies"
  type        = list(string)
  default     = []
}

variable "auditors" {
  description = "ARNs of those who may become the auditor's role and the queries'. Empty: neither role is made"
  type        = list(string)
  default     = []
}

variable "target_secrets" {
  description = "ARNs of targets' credentials in Secrets Manager that are not named countersign-STAGE/targets/..."
  type        = list(string)
  default     = []
}

variable "digest_bucket" {
  description = "Name of a bucket of another account that gets a copy of every hourly digest; empty: none does"
  type        = string
  default     = ""
}

variable "vpc_id" {
  description = "A VPC that is there already; empty makes a small one"
  type        = string
  default     = ""
}

variable "subnet_ids" {
  description = "Subnets of that VPC, in at least two zones"
  type        = list(string)
  default     = []

  validation {
    condition     = (var.vpc_id == "") == (length(var.subnet_ids) == 0) && length(var.subnet_ids) != 1
    error_message = "A VPC of yours needs two subnets of it at least; without one, name none."
  }
}

variable "cidr" {
  description = "Addresses of the VPC that is made"
  type        = string
  default     = "10.86.0.0/24"
}

variable "client_cidrs" {
  description = "From where clients reach the broker. Who they are is not shown by an address, so everywhere is safe"
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "interface_endpoints" {
  description = "Reach AWS without the internet: seven endpoints, about $100 a month in two zones"
  type        = bool
  default     = false
}

variable "ssh" {
  description = "Whether the broker serves ssh, on port 22"
  type        = bool
  default     = true
}

variable "broker_host" {
  description = "The name in the broker's certificate; empty: the balancer's own"
  type        = string
  default     = ""
}

variable "broker_ca_pem" {
  description = "The certificate authority that signed the broker's certificate, which clients are told to trust"
  type        = string
}

variable "broker_ssh_host_key" {
  description = "The public line of the broker's ssh host key (TYPE BASE64); needed where ssh is served"
  type        = string
  default     = ""
}

variable "broker_image" {
  description = "The broker's image by its digest (REPOSITORY@sha256:...); empty while there is none: then no task runs"
  type        = string
  default     = ""
}

variable "broker_architecture" {
  description = "ARM64 or X86_64, as the image was built"
  type        = string
  default     = "ARM64"
}

variable "slack_channel" {
  description = "Id of the channel that cards are posted in"
  type        = string
}

variable "public_url" {
  description = "The API's own origin where it has a domain; empty: API Gateway's"
  type        = string
  default     = ""
}

variable "approval_url" {
  description = "Where people reach the approval page; empty: the API's own origin"
  type        = string
  default     = ""
}

variable "functions_deployed" {
  description = "Whether `chalice deploy` has made the functions, so that what calls them can be made"
  type        = bool
  default     = false
}

variable "api_id" {
  description = "Id of the API that `chalice deploy` made"
  type        = string
  default     = ""
}

variable "api_stage" {
  description = "Its stage"
  type        = string
  default     = "api"
}

variable "alarm_emails" {
  description = "Who is told of alarms by mail; each must confirm. A pager subscribes to the topic itself"
  type        = set(string)
  default     = []
}

variable "target_log_groups" {
  description = "Log groups of targets' own logs, /countersign/targets/NAME, whose refused logins are told"
  type        = set(string)
  default     = []
}
