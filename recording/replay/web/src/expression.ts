// Regular expressions where there is no recorder to run them. A browser's own can take for ever on a line that was made
// for it; RE2 cannot, and is what the recorder has.

import { RE2JS } from "re2js";
import { Refusal } from "./api";

const LONGEST = 3000; // ms
const MOST = 1001; // lines that fit
const TURN = 30; // ms after which the page has its turn

// fitting gives the numbers of the lines that q fits, and where time was up.
export async function fitting(q: string, lines: string[]): Promise<{ found: number[]; upTo?: number }> {
  let re: RE2JS;
  try {
    re = RE2JS.compile(q, RE2JS.CASE_INSENSITIVE);
  } catch (err) {
    throw new Refusal(400, `This is not a regular expression: ${String((err as Error).message ?? err).replace("error parsing regexp: ", "")}.`);
  }
  const found: number[] = [];
  const began = performance.now();
  let turn = began;
  for (let i = 0; i < lines.length && found.length < MOST; i++) {
    if (re.matcher(lines[i]).find()) found.push(i);
    const now = performance.now();
    if (now - began > LONGEST) return { found, upTo: i };
    if (now - turn > TURN) {
      await new Promise((go) => setTimeout(go));
      turn = performance.now();
    }
  }
  return { found };
}
