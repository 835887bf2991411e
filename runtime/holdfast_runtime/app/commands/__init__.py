"""One module per command or group of commands; each reads its options, asks, and prints."""
