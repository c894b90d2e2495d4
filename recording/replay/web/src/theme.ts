// The colours of terminals, for the player and for the pictures of the list.

export const THEME = {
  background: "#14161c", foreground: "#d8dbe2", cursor: "#8fb3ff", selectionBackground: "#3b4a6b",
  black: "#1d2029", red: "#f0717a", green: "#8cc98a", yellow: "#e3c078", blue: "#7aa8f0", magenta: "#c695e0", cyan: "#74c7cf", white: "#c9ccd4",
  brightBlack: "#6a7080", brightRed: "#ff8b92", brightGreen: "#a8e0a5", brightYellow: "#f5d695", brightBlue: "#9cc0ff", brightMagenta: "#dcb0f2", brightCyan: "#95dfe6", brightWhite: "#f2f4f8",
};

export const MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace';

const FIRST = [THEME.black, THEME.red, THEME.green, THEME.yellow, THEME.blue, THEME.magenta, THEME.cyan, THEME.white,
  THEME.brightBlack, THEME.brightRed, THEME.brightGreen, THEME.brightYellow, THEME.brightBlue, THEME.brightMagenta, THEME.brightCyan, THEME.brightWhite];
const LEVELS = [0, 95, 135, 175, 215, 255]; // of xterm's cube of 6 by 6 by 6

// palette gives one of the 256 colours.
export function palette(n: number): string {
  if (n < 16) return FIRST[n];
  if (n < 232) return `rgb(${LEVELS[Math.floor((n - 16) / 36)]}, ${LEVELS[Math.floor((n - 16) / 6) % 6]}, ${LEVELS[(n - 16) % 6]})`;
  const grey = 8 + (n - 232) * 10;
  return `rgb(${grey}, ${grey}, ${grey})`;
}
