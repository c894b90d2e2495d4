package ssh

// plainModes is the mode list of RFC 4254 section 8 for no terminal: speeds, then the end.
const plainModes = "\x80\x00\x00\x96\x00" + "\x81\x00\x00\x96\x00" + "\x00"
