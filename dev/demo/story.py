"""The story of the demo: one run of a pipeline and everything below it, from its token to the access review, with what
each witness saw.

Rules: nothing is claimed that was not observed in this run: on the programs' own output, in the targets' own logs, in
the tables, in the bucket, in the audit trail. A thing that cannot be observed ends the story with what was waited for.
The approvers act through the stand-in's contract alone, as any other test would.
"""

from __future__ import annotations

from chalicelib.domain.clock import Clock
from dev.demo.chapters import around, delegation, evidence, job, machine, revocation, witnesses
from dev.demo.screen import Screen
from dev.demo.stage import Stage
from dev.local_stack import Stack


class Story:
    """Tells it once."""

    def __init__(self, stack: Stack, screen: Screen, clock: Clock, *, interactive: bool) -> None:
        self._stage = Stage(stack, screen, clock, interactive=interactive)

    def tell(self) -> None:
        """Run the whole story. Raises DemoBroken."""
        stage = self._stage
        try:
            auditor = evidence.onboard(stage)
            runner = job.tell(stage)
            family = delegation.tell(stage, runner)
            live = machine.tell(stage, runner, family)
            loot = around.tell(stage, runner, family)
            carol = revocation.tell(stage, runner, family, live)
            witnesses.tell(stage, runner, loot)
            evidence.tell(stage, runner, auditor, carol)
        finally:
            stage.close()
