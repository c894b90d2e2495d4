// Regular expressions where there is no recorder to run them: a browser's can take for ever on a line that
// was made for it, so they run in a worker that is given so long and no longer.

import { Refusal } from "./api";

const LONGEST = 3000; // ms
const MOST = 1001; // lines that fit

const WORKER = `onmessage = ({ data: { q, lines } }) => {
  const out = [];
  try {
    const re = new RegExp(q, "iu");
    for (let i = 0; i < lines.length && out.length < ${MOST}; i++) if (re.test(lines[i])) out.push(i);
    postMessage(out);
  } catch (err) {
    postMessage(String(err.message ?? err));
  }
};`;

// bounded gives the numbers of the lines that q fits.
export function bounded(q: string, lines: string[]): Promise<number[]> {
  const url = URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" }));
  return new Promise((done, fail) => {
    let worker: Worker;
    const end = () => {
      clearTimeout(timer);
      worker?.terminate();
      URL.revokeObjectURL(url);
    };
    const timer = setTimeout(() => {
      end();
      fail(new Refusal(400, "This expression takes too long on this recording."));
    }, LONGEST);
    const none = () => {
      end();
      fail(new Refusal(400, "This browser runs no expressions in a page from a file; words can be looked for."));
    };
    try {
      worker = new Worker(url);
    } catch {
      none();
      return;
    }
    worker.onerror = none;
    worker.onmessage = ({ data }) => {
      end();
      if (typeof data === "string") fail(new Refusal(400, `This is not a regular expression: ${data}`));
      else done(data);
    };
    worker.postMessage({ q, lines });
  });
}
