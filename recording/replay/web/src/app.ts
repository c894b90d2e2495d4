// The entry: one page, two places. "/" is the list, "/r/ID" the player.

import "@xterm/xterm/css/xterm.css";
import "./style.css";
import "./unlock.css";
import { base, Refusal } from "./api";
import { adoptStyles } from "./csp";
import { h, replace } from "./dom";
import { showList } from "./list";
import { showPlayer } from "./player";
import { showSearch } from "./search";

const main = document.getElementById("main")!;

async function start() {
  adoptStyles();
  const path = location.pathname.slice(base.length);
  const match = /^\/r\/([^/]+)\/?$/.exec(path);
  try {
    if (match) await showPlayer(main, decodeURIComponent(match[1]));
    else if (path === "/search") await showSearch(main);
    else await showList(main);
  } catch (err) {
    showRefusal(err, match !== null);
  }
}

function showRefusal(err: unknown, recording: boolean) {
  const status = err instanceof Refusal ? err.status : -1;
  const title =
    status === 401 ? "Who are you?" :
    status === 403 ? "You may not see this" :
    status === 404 ? "No such recording" :
    status === 0 ? "No answer" : "That did not work";
  const words = err instanceof Error ? err.message : String(err);
  replace(main, h("section", { class: "state", role: "alert" },
    h("h1", null, title),
    h("p", null, words),
    h("p", null, recording ? h("a", { href: `${base}/` }, "All recordings") : h("a", { href: location.href }, "Try again"))));
  document.title = title;
}

void start();
