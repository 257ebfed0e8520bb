"""What a reply is worth: verifiers (`verifiers`), and the sandbox that runs code of models (`sandbox`)."""
