variable "name" {
  description = "Begins every resource's name; the prefix of tables and functions"
  type        = string
}

variable "api_id" {
  description = "The REST API that Chalice made"
  type        = string
}

variable "api_stage" {
  description = "Its stage"
  type        = string
}

variable "streams" {
  description = "Table to the ARN of its stream"
  type        = map(string)

  validation {
    condition     = contains(keys(var.streams), "asks") && contains(keys(var.streams), "answers")
    error_message = "Cards follow the streams of asks and answers."
  }
}

variable "log_groups" {
  description = "Function, or `broker`, to its log group's name"
  type        = map(string)
}

variable "target_log_groups" {
  description = "Log groups of targets' own logs, /countersign/targets/NAME, whose refused logins are told"
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for group in var.target_log_groups : can(regex("^/countersign/targets/[a-z0-9][a-z0-9-]*$", group))])
    error_message = "watch_targets takes the target's name from the group's: /countersign/targets/NAME."
  }
}

variable "bucket" {
  description = "The locked bucket"
  type        = string
}

variable "digest_bucket" {
  description = "The bucket of digests' copies; empty where there is none"
  type        = string
}

variable "requests_each_5_min" {
  description = "Of one address, after which it is refused. Runners of a whole company may share one."
  type        = number
  default     = 3000
}
