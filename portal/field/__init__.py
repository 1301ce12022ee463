"""What a field engineer does: install, replace, take down, commission, photograph."""
