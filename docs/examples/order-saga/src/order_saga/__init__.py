"""An order across four services that is taken to its end, or leaves no trace."""
