"""The one loop and what it needs: packed batches, losses, optimizers, schedules, the mesh, snapshots."""
