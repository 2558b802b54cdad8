"""What `launcher doctor` looks at; each check gives one finding and changes nothing."""
