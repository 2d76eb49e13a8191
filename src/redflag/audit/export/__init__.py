"""The log as others take it: by position, in their formats."""
