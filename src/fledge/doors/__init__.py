"""What the command line takes and says of itself: one function a command. What a command does is in `commands`."""
