"""What the doors of the command line do, one module a door; imported when the door is opened."""
