"""What the coordinator needs of the outside, as small Protocol classes in domain words; no adapter is imported here."""
