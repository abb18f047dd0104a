variable "name" {
  description = "Begins every resource's name; the cluster's whole name"
  type        = string
}

variable "vpc_id" {
  description = "Where the service runs"
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the balancer and the tasks, in at least two zones"
  type        = list(string)
}

variable "balancer_group" {
  description = "Security group of the balancer"
  type        = string
}

variable "broker_group" {
  description = "Security group of the tasks"
  type        = string
}

variable "public_addresses" {
  description = "Whether tasks get an address of their own to reach AWS and the targets"
  type        = bool
}

variable "ports" {
  description = "Protocol to the port that clients connect to (listen) and the one that the task listens on (target)"
  type        = map(object({ listen = number, target = number }))

  validation {
    condition     = contains(keys(var.ports), "postgres") && length(setsubtract(keys(var.ports), ["postgres", "ssh"])) == 0
    error_message = "The broker speaks postgres, and ssh where it is asked to."
  }

  # The container runs as a user that may bind no port below 1024 on Fargate.
  validation {
    condition     = alltrue([for port in values(var.ports) : port.target >= 1024])
    error_message = "A target port is 1024 or more."
  }
}

variable "task_role_arn" {
  description = "Role of the broker itself: infra/policies/broker.json"
  type        = string
}

variable "execution_role_arn" {
  description = "Role with which ECS pulls the image, reads the secrets below and writes the log"
  type        = string
}

variable "log_group" {
  description = "Name of the broker's log group"
  type        = string
}

variable "image" {
  description = "The broker's image by its digest (REPOSITORY@sha256:...); empty while there is none: then no task runs"
  type        = string

  validation {
    condition     = var.image == "" || can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "An image is named by its digest: what runs is then what the hourly digests name."
  }
}

variable "architecture" {
  description = "ARM64 or X86_64, as the image was built"
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.architecture)
    error_message = "The architecture is ARM64 or X86_64."
  }
}

variable "environment" {
  description = "COUNTERSIGN_* of the stores: PREFIX, BUCKET, BUCKET_KEY, LOCK_DAYS, FUNCTION_PREFIX. No secret."
  type        = map(string)
}

variable "secrets" {
  description = "ARNs of the secrets that hold PEM texts: tls_certificate, tls_key, and ssh_host_key where ssh is served"
  type        = object({ tls_certificate = string, tls_key = string, ssh_host_key = optional(string, "") })
}

variable "size" {
  description = "Of a task: CPU units (1024 is a vCPU; the broker is one process and uses one) and MiB of memory"
  type        = object({ cpu = number, memory = number })
  default     = { cpu = 1024, memory = 2048 }
}

variable "tasks" {
  description = "Least and most tasks. Two, in two zones, is the least that outlives a zone."
  type        = object({ least = number, most = number })
  default     = { least = 2, most = 10 }

  validation {
    condition     = 1 <= var.tasks.least && var.tasks.least <= var.tasks.most
    error_message = "At least one task, and not more than the most."
  }
}

variable "sessions_per_task" {
  description = "Live sessions of a task at which another is started"
  type        = number
  default     = 100
}

variable "idle_s" {
  description = "Seconds after which the balancer forgets a silent connection (60 to 6000)"
  type        = number
  default     = 3600

  validation {
    condition     = 60 <= var.idle_s && var.idle_s <= 6000
    error_message = "A Network Load Balancer takes 60 to 6000 seconds."
  }
}

variable "drain_s" {
  description = "Seconds that live sessions go on after SIGTERM; 25 more are for ending and sealing, 120 are all that Fargate gives"
  type        = number
  default     = 90

  validation {
    condition     = 0 <= var.drain_s && var.drain_s <= 90
    error_message = "Fargate kills a task 120 seconds after SIGTERM, and sealing needs 25 of them."
  }
}

variable "internal" {
  description = "Whether the balancer is reached from the VPC alone"
  type        = bool
  default     = false
}

variable "host" {
  description = "The name in the broker's certificate; empty: the balancer's own"
  type        = string
  default     = ""
}

variable "zone_id" {
  description = "Route 53 zone in which `host` is made to point at the balancer; empty: that is done elsewhere"
  type        = string
  default     = ""
}

variable "protect" {
  description = "Whether the balancer is protected from deletion, and images from that of their repository"
  type        = bool
}
