"""The Holdfast SDK: what goes into a Lambda package."""
