# say WORDS…: one line on the console, with the seconds since the kernel started.
say() {
  read -r up _ < /proc/uptime
  echo "ami-tiny: $* up=$up" > /dev/console
}
