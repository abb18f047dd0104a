# The broker's container on Fargate. It writes nowhere but into its spool, is nobody on the machine, takes no shell: ECS
# Exec is off, and the image has none. Source: Amazon ECS developer guide, "Task definition parameters for Fargate",
# "Protect your tasks from being terminated by scale-in events".

data "aws_region" "current" {}

locals {
  ssh   = contains(keys(var.ports), "ssh")
  least = var.image == "" ? 0 : var.tasks.least

  environment = merge(var.environment, {
    AWS_DEFAULT_REGION               = data.aws_region.current.name
    COUNTERSIGN_BUILD                = var.image == "" ? "none" : regex("sha256:[0-9a-f]{64}$", var.image)
    COUNTERSIGN_DRAIN_S              = tostring(var.drain_s)
    COUNTERSIGN_LISTEN_HOST          = "0.0.0.0" # inside the task's own network interface, whose group admits the balancer
    COUNTERSIGN_LISTEN_POSTGRES_PORT = tostring(var.ports["postgres"].target)
    COUNTERSIGN_LISTEN_SSH_PORT      = local.ssh ? tostring(var.ports["ssh"].target) : "0"
    COUNTERSIGN_PROXY_PROTOCOL       = "v2"
    COUNTERSIGN_SPOOL                = "/spool"
  })

  secrets = merge(
    {
      COUNTERSIGN_TLS_CERTIFICATE_PEM = var.secrets.tls_certificate
      COUNTERSIGN_TLS_KEY_PEM         = var.secrets.tls_key
    },
    local.ssh ? { COUNTERSIGN_SSH_HOST_KEY_PEM = var.secrets.ssh_host_key } : {},
  )

  container = {
    name      = "broker"
    image     = var.image == "" ? "${aws_ecr_repository.broker.repository_url}:none" : var.image
    essential = true
    user      = "10001:10001"

    readonlyRootFilesystem = true
    linuxParameters        = { capabilities = { add = [], drop = ["ALL"] }, initProcessEnabled = false }
    # A connection is two sockets, and a session's recording a file of the spool; Fargate's own soft limit has been 1,024.
    ulimits = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]

    stopTimeout = 120 # the most that Fargate gives
    healthCheck = {
      command     = ["CMD", "/opt/countersign/bin/python", "-m", "broker.health"]
      interval    = 15
      timeout     = 5
      retries     = 3
      startPeriod = 60 # configuration and revocations are read before it listens
    }

    portMappings = [for protocol in sort(keys(var.ports)) : {
      containerPort = var.ports[protocol].target, hostPort = var.ports[protocol].target, protocol = "tcp"
    }]
    mountPoints = [{ sourceVolume = "spool", containerPath = "/spool", readOnly = false }]
    volumesFrom = []
    environment = [for name in sort(keys(local.environment)) : { name = name, value = local.environment[name] }]
    secrets     = [for name in sort(keys(local.secrets)) : { name = name, valueFrom = local.secrets[name] }]

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = var.log_group
        awslogs-region        = data.aws_region.current.name
        awslogs-stream-prefix = "broker"
        # A log that does not answer must not stop sessions: events go into the bucket by the broker itself as well.
        mode            = "non-blocking"
        max-buffer-size = "25m"
      }
    }
  }
}

resource "aws_ecr_repository" "broker" {
  name                 = "${var.name}-broker"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = !var.protect

  image_scanning_configuration {
    scan_on_push = true
  }
}

resource "aws_ecr_lifecycle_policy" "broker" {
  repository = aws_ecr_repository.broker.name

  # A tag never moves, so what has none is what a build left behind.
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "What was never tagged"
      selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 30 }
      action       = { type = "expire" }
    }]
  })
}

resource "aws_ecs_cluster" "this" {
  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_task_definition" "broker" {
  family                   = "${var.name}-broker"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.size.cpu
  memory                   = var.size.memory
  task_role_arn            = var.task_role_arn
  execution_role_arn       = var.execution_role_arn
  container_definitions    = jsonencode([local.container])

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  # It ends with the task, and no promise rests on it.
  volume {
    name = "spool"
  }

  lifecycle {
    precondition {
      condition     = !local.ssh || var.secrets.ssh_host_key != ""
      error_message = "Serving ssh needs the secret of a host key."
    }
  }
}

resource "aws_ecs_service" "broker" {
  name            = "broker"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.broker.arn
  launch_type     = "FARGATE"
  desired_count   = local.least

  platform_version                   = "1.4.0"
  availability_zone_rebalancing      = "ENABLED"
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 90
  enable_execute_command             = false
  enable_ecs_managed_tags            = true
  propagate_tags                     = "SERVICE"
  wait_for_steady_state              = false # the glue's smoke test says more than that tasks run

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [var.broker_group]
    assign_public_ip = var.public_addresses
  }

  dynamic "load_balancer" {
    for_each = var.ports

    content {
      target_group_arn = aws_lb_target_group.broker[load_balancer.key].arn
      container_name   = "broker"
      container_port   = load_balancer.value.target
    }
  }

  # Autoscaling's to say.
  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_lb_listener.broker]
}
