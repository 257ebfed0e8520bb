"""What everything else speaks in: configuration, records, artefacts, progress, the machine."""
