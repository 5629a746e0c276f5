"""What both services and every client of Rowmint share."""
