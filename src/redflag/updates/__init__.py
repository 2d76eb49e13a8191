"""What can be updated where, and what was decided about it.

Every room here locks in one order: a report of an agent first takes that agent's own lock, then rows of `updates` in the
order of their ids; a command is locked before the updates it works on. The audit record of each status change is written
by the trigger on `updates`, in the transaction of the change.
"""
