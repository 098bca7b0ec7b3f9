"""What every request and answer passes: may we, should we wait, must we stop."""
