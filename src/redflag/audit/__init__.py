"""The audit trail: who acted, what was recorded, and how it is read."""
